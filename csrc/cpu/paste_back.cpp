// A rendered crop put back into its picture. The definition is ditto/ops/reference/paste_back.py.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/packs.h"
#include "dispatch.h"

namespace ditto {

namespace {

constexpr int kCell = 8;
constexpr float kQuiet = 0.6f, kBusy = 3.0f;

using Floats = std::vector<float>;

inline void cubic(float t, float* w) {
    w[0] = ((-0.5f * t + 1.0f) * t - 0.5f) * t;
    w[1] = (1.5f * t - 2.5f) * t * t + 1.0f;
    w[2] = ((-1.5f * t + 2.0f) * t + 0.5f) * t;
    w[3] = (0.5f * t - 0.5f) * t * t;
}

// One row of the difference, faded at both ends; the sum of its absolute values.
DITTO_MULTIVERSION
int subtract_row(const uint8_t* rendered, const uint8_t* source, const float* fade, float row_fade, int count,
                 int16_t* out) {
    int total = 0;
    for (int i = 0; i < count; ++i) {
        const float d = static_cast<float>(static_cast<int>(rendered[i]) - static_cast<int>(source[i]));
        const int16_t value = static_cast<int16_t>(std::rint(d * (row_fade * fade[i])));
        out[i] = value;
        total += std::abs(static_cast<int>(value));
    }
    return total;
}

DITTO_MULTIVERSION
void add_absolute(const int16_t* values, int count, int* sums) {
    for (int i = 0; i < count; ++i) sums[i] += std::abs(static_cast<int>(values[i]));
}

DITTO_MULTIVERSION
void cell_means(const int* sums, int cells, int channels, float* means) {
    const int numbers = channels * kCell;
    for (int i = 0; i < cells; ++i) {
        int total = 0;
        for (int k = 0; k < numbers; ++k) total += sums[numbers * i + k];
        means[i] = static_cast<float>(total) / static_cast<float>(numbers * kCell);
    }
}

// 0 .. 1 per cell: how busy the difference is there and in the cells around.
Floats activity(const std::vector<int16_t>& d, const std::vector<char>& busy_row, int side, int channels) {
    const int cells = side / kCell, padded = cells + 2;
    Floats level(static_cast<size_t>(padded) * padded, 0.0f), most(level.size(), 0.0f), out;
    std::vector<int> sums;
    for (int row = 0; row < cells; ++row) {
        sums.assign(static_cast<size_t>(cells) * channels * kCell, 0);
        for (int y = kCell * row; y < kCell * (row + 1); ++y)
            if (busy_row[y])
                add_absolute(d.data() + static_cast<size_t>(y) * side * channels, channels * kCell * cells, sums.data());
        cell_means(sums.data(), cells, channels, level.data() + static_cast<size_t>(row + 1) * padded + 1);
    }
    for (int y = 1; y <= cells; ++y)
        for (int x = 1; x <= cells; ++x)
            for (int j = -1; j <= 1; ++j)
                for (int i = -1; i <= 1; ++i) {
                    float& m = most[static_cast<size_t>(y) * padded + x];
                    m = std::max(m, level[static_cast<size_t>(y + j) * padded + x + i]);
                }
    out.resize(static_cast<size_t>(cells) * cells);
    for (int y = 0; y < cells; ++y)
        for (int x = 0; x < cells; ++x) {
            float mean = 0.0f;
            for (int j = -1; j <= 1; ++j)
                for (int i = -1; i <= 1; ++i)
                    mean += most[static_cast<size_t>(std::min(std::max(y + j, 0), cells - 1) + 1) * padded +
                                 std::min(std::max(x + i, 0), cells - 1) + 1];
            const float u = std::min(std::max((mean / 9.0f - kQuiet) / (kBusy - kQuiet), 0.0f), 1.0f);
            out[static_cast<size_t>(y) * cells + x] = u * u * (3.0f - 2.0f * u);
        }
    return out;
}

// Four rows of the padded difference, weighted, into one.
DITTO_MULTIVERSION
void mix_rows(const float* a, const float* b, const float* c, const float* d, const float* w, int count, float* out) {
    for (int i = 0; i < count; ++i) out[i] = w[0] * a[i] + w[1] * b[i] + w[2] * c[i] + w[3] * d[i];
}

// Pixels of three channels are padded to four. Results have three: each store's last float is written over by the next pixel,
// so their buffers are one float longer.
DITTO_PART Four four_taps(const float* at, const float* w) {
    return w[0] * load<Four>(at) + w[1] * load<Four>(at + 4) + w[2] * load<Four>(at + 8) + w[3] * load<Four>(at + 12);
}

// Bicubic along a row of four-channel pixels, `index` the first of the four taps; three channels out.
DITTO_MULTIVERSION
void sample_row(const float* line, const int* index, const float* weights, int count, float* out) {
    for (int x = 0; x < count; ++x) store(out + 3 * x, four_taps(line + 4 * index[x], weights + 4 * x));
}

DITTO_PART float four_taps_of_one(const float* at, const float* w) {
    return w[0] * at[0] + w[1] * at[1] + w[2] * at[2] + w[3] * at[3];
}

DITTO_MULTIVERSION
void sample_row_of_one(const float* line, const int* index, const float* weights, int count, float* out) {
    for (int x = 0; x < count; ++x) out[x] = four_taps_of_one(line + index[x], weights + 4 * x);
}

// The sum of a few rows, and then of as many neighbours in it, times `share`; four channels out.
DITTO_MULTIVERSION
void add_row_to(const int16_t* values, int count, float* sums) {
    for (int i = 0; i < count; ++i) sums[i] += static_cast<float>(values[i]);
}

DITTO_MULTIVERSION
void reduce_row(const float* sums, int reduce, float share, int count, float* out) {
    for (int x = 0; x < count; ++x, sums += 3 * reduce) {
        Four sum = load<Four>(sums);
        for (int i = 1; i < reduce; ++i) sum = sum + load<Four>(sums + 3 * i);
        store(out + 4 * x, share * sum);
    }
}

DITTO_MULTIVERSION
void reduce_row_of_one(const float* sums, int reduce, float share, int count, float* out) {
    for (int x = 0; x < count; ++x) {
        float sum = 0.0f;
        for (int i = 0; i < reduce; ++i) sum += sums[x * reduce + i];
        out[x] = share * sum;
    }
}

DITTO_MULTIVERSION
void mix_cells(const float* upper, const float* lower, float part, int count, float* out) {
    for (int i = 0; i < count; ++i) out[i] = upper[i] + part * (lower[i] - upper[i]);
}

DITTO_MULTIVERSION
void spread_cells(const float* cells, const int* index, const float* part, int count, float* out) {
    for (int x = 0; x < count; ++x) out[x] = cells[index[x]] + part[x] * (cells[index[x] + 1] - cells[index[x]]);
}

// Three equal channels of each value.
DITTO_MULTIVERSION
void triple(const float* values, int count, float* out) {
    for (int x = 0; x < count; ++x) out[3 * x] = out[3 * x + 1] = out[3 * x + 2] = values[x];
}

DITTO_MULTIVERSION
void take_off(float* change, const int16_t* detail, const float* busy, int count) {
    for (int i = 0; i < count; ++i) change[i] -= busy[i] * static_cast<float>(detail[i]);
}

DITTO_MULTIVERSION
void add_row(uint8_t* pixels, const float* change, int count) {
    for (int i = 0; i < count; ++i) {
        const float value = static_cast<float>(pixels[i]) + change[i] + 0.5f;
        pixels[i] = static_cast<uint8_t>(static_cast<int>(std::min(std::max(value, 0.0f), 255.0f)));
    }
}

DITTO_MULTIVERSION
void add_whole_row(uint8_t* pixels, const int16_t* change, int count) {
    for (int i = 0; i < count; ++i)
        pixels[i] = static_cast<uint8_t>(std::min(std::max(static_cast<int>(pixels[i]) + change[i], 0), 255));
}

DITTO_MULTIVERSION
void mark(const int16_t* values, int count, int16_t* marks) {
    for (int i = 0; i < count; ++i) marks[i] = static_cast<int16_t>(marks[i] | values[i]);
}

// std::floor is a call where the baseline processor lacks the instruction.
inline float floor_of(float x) {
    const float whole = static_cast<float>(static_cast<int>(x));
    return whole > x ? whole - 1.0f : whole;
}

struct CellAt {
    int index;
    float part;
};

inline CellAt cell_at(float position, int cells) {
    const float at = std::min(std::max((position + 0.5f) / kCell - 0.5f, 0.0f), static_cast<float>(cells - 1));
    const int index = std::min(static_cast<int>(at), std::max(cells - 2, 0));
    return {index, at - static_cast<float>(index)};
}

// A crop that is turned against the picture: one row of the picture, sampled pixel by pixel.
struct Turned {
    float a[6];  // picture -> crop
    float least_u, most_u, least_v, most_v;  // crop pixels between which something changes
    const float* small;
    int n, line, reduce, channels;
    const float* busy;  // null where there is no detail
    int cells;
};

DITTO_MULTIVERSION
void sample_turned_row(const Turned& t, int x0, int y, int count, float* change, float* gate) {
    const float scale = 1.0f / static_cast<float>(t.reduce), limit = static_cast<float>(t.n) + 1.0f;
    const float at_y = static_cast<float>(y);
    const int next = t.cells > 1 ? 1 : 0;
    for (int x = 0; x < count; ++x) {
        const float at_x = static_cast<float>(x0 + x);
        const float across = t.a[0] * at_x + t.a[1] * at_y + t.a[2], down = t.a[3] * at_x + t.a[4] * at_y + t.a[5];
        const float u = (across + 0.5f) * scale - 0.5f, v = (down + 0.5f) * scale - 0.5f;
        if (u <= -2.0f || u >= limit || v <= -2.0f || v >= limit) continue;
        if (across < t.least_u || across > t.most_u || down < t.least_v || down > t.most_v) continue;
        if (t.busy) {
            const CellAt i = cell_at(across, t.cells), j = cell_at(down, t.cells);
            const float* upper = t.busy + static_cast<size_t>(j.index) * t.cells + i.index;
            const float* lower = upper + (t.cells > 1 ? t.cells : 0);
            const float p = upper[0] + j.part * (lower[0] - upper[0]);
            const float q = upper[next] + j.part * (lower[next] - upper[next]);
            gate[x] = p + i.part * (q - p);
        }
        const float low_u = floor_of(u), low_v = floor_of(v);
        float wx[4], wy[4], value[4];
        cubic(u - low_u, wx);
        cubic(v - low_v, wy);
        const size_t column = static_cast<size_t>(static_cast<int>(low_u) + 2);
        const float* row = t.small + static_cast<size_t>(static_cast<int>(low_v) + 2) * t.line;
        if (t.channels == 1) {
            change[x] = 0.0f;
            for (int j = 0; j < 4; ++j) change[x] += wy[j] * four_taps_of_one(row + j * t.line + column, wx);
            continue;
        }
        const float* at = row + 4 * column;
        store(value, wy[0] * four_taps(at, wx) + wy[1] * four_taps(at + t.line, wx) +
                         wy[2] * four_taps(at + 2 * t.line, wx) + wy[3] * four_taps(at + 3 * t.line, wx));
        for (int c = 0; c < 3; ++c) change[3 * x + c] = value[c];
    }
}

}  // namespace

void paste_back(const Paste& paste, const uint8_t* rendered, PasteWorkspace& work, uint8_t* frame) {
    const int side = paste.side, channels = paste.channels, stride = channels * paste.width, reduce = paste.reduce;
    const int x0 = paste.x, y0 = paste.y, width = paste.columns, height = paste.rows;
    const float *across = paste.ramp, *down = paste.ramp + side;
    const int16_t* fine = paste.detail;
    float a[6];
    for (int i = 0; i < 6; ++i) a[i] = static_cast<float>(paste.to_crop[i]);
    std::memcpy(frame, paste.picture, static_cast<size_t>(paste.height) * stride);

    std::vector<int16_t>& d = work.difference;
    d.resize(static_cast<size_t>(side) * side * channels);
    std::vector<char> busy_row(side);
    Floats fade(static_cast<size_t>(side) * channels);
    for (int x = 0; x < side; ++x) std::fill_n(fade.begin() + channels * static_cast<std::ptrdiff_t>(x), channels, across[x]);
    int first = side, last = -1;
    for (int y = 0; y < side; ++y) {
        const size_t at = static_cast<size_t>(y) * side * channels;
        busy_row[y] = subtract_row(rendered + at, paste.source + at, fade.data(), down[y], channels * side, d.data() + at) != 0;
        if (busy_row[y]) {
            first = std::min(first, y);
            last = y;
        }
    }
    if (last < 0) return;
    uint8_t* part = frame + static_cast<size_t>(y0) * stride + static_cast<size_t>(x0) * channels;

    const bool parallel = a[1] == 0.0f && a[3] == 0.0f;
    const float shift_x = a[2] + a[0] * static_cast<float>(x0), shift_y = a[5] + a[4] * static_cast<float>(y0);
    const bool whole = parallel && a[0] == 1.0f && a[4] == 1.0f && shift_x == std::rint(shift_x) &&
                       shift_y == std::rint(shift_y);
    if (whole && !fine && reduce == 1) {  // the crop is a copy: nothing to resample
        const int left = std::max(0, -static_cast<int>(shift_x));
        const int right = std::min(width, side - static_cast<int>(shift_x));
        for (int y = 0; y < height; ++y) {
            const int row = y + static_cast<int>(shift_y);
            if (row < 0 || row >= side || !busy_row[row] || right <= left) continue;
            const int16_t* from = d.data() + (static_cast<size_t>(row) * side + left + static_cast<int>(shift_x)) * channels;
            add_whole_row(part + static_cast<size_t>(y) * stride + channels * static_cast<size_t>(left), from,
                          channels * (right - left));
        }
        return;
    }

    // Where in the crop anything changes: the taps reach two samples further, the fading of detail three cells.
    std::vector<int16_t> marks(static_cast<size_t>(side) * channels, 0);
    for (int y = first; y <= last; ++y)
        if (busy_row[y]) mark(d.data() + static_cast<size_t>(y) * side * channels, channels * side, marks.data());
    int left = channels * side, right = 0;
    for (int i = 0; i < channels * side; ++i)
        if (marks[i]) {
            left = std::min(left, i);
            right = i;
        }
    const float reach = static_cast<float>(std::max(fine ? 4 * kCell : 0, 3 * reduce));
    const float least_u = static_cast<float>(left / channels) - reach, most_u = static_cast<float>(right / channels) + reach;
    const float least_v = static_cast<float>(first) - reach, most_v = static_cast<float>(last) + reach;

    // The difference, reduced, as float of one channel or four, with a border of three zeros.
    const int n = side / reduce, padded = channels == 1 ? 1 : 4, line = (n + 6) * padded;
    Floats& small = work.small;
    small.assign(static_cast<size_t>(n + 6) * line, 0.0f);
    const float share = 1.0f / static_cast<float>(reduce * reduce);
    Floats sums;  // one float longer: pixels of three channels are read four at a time
    for (int y = 0; y < n; ++y) {
        const char* busy = busy_row.data() + static_cast<size_t>(y) * reduce;
        if (std::none_of(busy, busy + reduce, [](char b) { return b != 0; })) continue;
        sums.assign(channels * static_cast<size_t>(side) + 1, 0.0f);
        for (int i = 0; i < reduce; ++i)
            if (busy[i])
                add_row_to(d.data() + (static_cast<size_t>(y) * reduce + i) * side * channels, channels * side, sums.data());
        float* into = small.data() + static_cast<size_t>(y + 3) * line + 3 * static_cast<size_t>(padded);
        (channels == 1 ? reduce_row_of_one : reduce_row)(sums.data(), reduce, share, n, into);
    }

    const int cells = side / kCell;
    Floats busy, cell_line(static_cast<size_t>(cells) + 1, 0.0f);
    if (fine) busy = activity(d, busy_row, side, channels);
    Floats change(static_cast<size_t>(width) * channels + 1, 0.0f), mixed(line), gate(width, 0.0f);
    Floats gates(static_cast<size_t>(width) * channels, 0.0f);
    Floats weights(static_cast<size_t>(width) * 4, 0.0f), cell_part(width, 0.0f);
    std::vector<int> index(width, 0), cell(width, 0);
    const float scale = 1.0f / static_cast<float>(reduce), limit = static_cast<float>(n) + 1.0f;
    int begin = 0, end = width;
    if (parallel) {
        end = 0;
        for (int x = 0; x < width; ++x) {
            const float position = a[0] * static_cast<float>(x0 + x) + a[2];
            const float u = (position + 0.5f) * scale - 0.5f;
            if (u <= -2.0f || u >= limit || position < least_u || position > most_u) {
                if (end == 0) begin = x + 1;
                continue;
            }
            end = x + 1;
            const float low = floor_of(u);
            index[x] = static_cast<int>(low) + 2;
            cubic(u - low, weights.data() + 4 * static_cast<size_t>(x));
            const CellAt at = cell_at(position, cells);
            cell[x] = at.index;
            cell_part[x] = at.part;
        }
    }
    if (end <= begin) return;
    const Turned turned = {{a[0], a[1], a[2], a[3], a[4], a[5]}, least_u,      most_u, least_v, most_v, small.data(), n,
                           line,                                 reduce,       channels, fine ? busy.data() : nullptr, cells};
    const int count = end - begin;
    for (int y = 0; y < height; ++y) {
        if (parallel) {
            const float position = a[4] * static_cast<float>(y0 + y) + a[5];
            const float v = (position + 0.5f) * scale - 0.5f;
            if (v <= -2.0f || v >= limit || position < least_v || position > most_v) continue;
            float w[4];
            const float low = floor_of(v);
            cubic(v - low, w);
            const float* rows = small.data() + static_cast<size_t>(static_cast<int>(low) + 2) * line;
            mix_rows(rows, rows + line, rows + 2 * line, rows + 3 * line, w, line, mixed.data());
            (channels == 1 ? sample_row_of_one : sample_row)(mixed.data(), index.data() + begin,
                                                             weights.data() + 4 * static_cast<size_t>(begin), count,
                                                             change.data() + channels * static_cast<size_t>(begin));
            if (fine) {
                const CellAt row = cell_at(position, cells);
                const float* upper = busy.data() + static_cast<size_t>(row.index) * cells;
                mix_cells(upper, cells > 1 ? upper + cells : upper, row.part, cells, cell_line.data());
                spread_cells(cell_line.data(), cell.data() + begin, cell_part.data() + begin, count,
                             gate.data() + begin);
            }
        } else {
            std::fill(change.begin(), change.end(), 0.0f);
            std::fill(gate.begin(), gate.end(), 0.0f);
            sample_turned_row(turned, x0, y0 + y, width, change.data(), gate.data());
        }
        const size_t from = channels * static_cast<size_t>(begin);
        if (fine) {
            if (channels == 3) triple(gate.data() + begin, count, gates.data() + from);
            take_off(change.data() + from, fine + static_cast<size_t>(y) * width * channels + from,
                     channels == 3 ? gates.data() + from : gate.data() + begin, channels * count);
        }
        add_row(part + static_cast<size_t>(y) * stride + from, change.data() + from, channels * count);
    }
}

}  // namespace ditto
