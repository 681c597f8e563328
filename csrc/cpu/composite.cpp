// The warped person over the background plate. The definition is ditto/ops/reference/composite.py.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/packs.h"
#include "dispatch.h"

namespace ditto {

namespace {

constexpr int kRun = 32;  // pixels that are passed over together where the plate takes nothing

// Where each column of an image lies between the columns of the gate.
struct Between {
    std::vector<int> left;
    std::vector<float> part;
    int next;
};

// What is laid over what in one row; `values` and `behind` of a plane that moves along, or null.
struct Row {
    uint8_t* image;
    const uint8_t *alpha, *plate;
    const float* line;  // the gate in this row
    uint8_t* values;
    const uint8_t* behind;
};

DITTO_PART void blend(uint8_t* own, const uint8_t* behind, const float* shares, int count) {
    for (int i = 0; i < count; ++i) {
        const float value = own[i];
        own[i] = static_cast<uint8_t>(value + shares[i] * (static_cast<float>(behind[i]) - value) + 0.5f);
    }
}

// `count` pixels from column `first` on, at most kRun.
DITTO_PART void blend_run(const Row& row, const Between& between, int first, int count) {
    const uint8_t* alpha = row.alpha + first;
    int least = 255;
    for (int x = 0; x < count; ++x) least = std::min(least, static_cast<int>(alpha[x]));
    if (least == 255) return;
    const int* left = between.left.data() + first;
    const float* part = between.part.data() + first;
    float shares[kRun], wide[3 * kRun], most = 0.0f;
    for (int x = 0; x < count; ++x) {
        const float gate = row.line[left[x]] + part[x] * (row.line[left[x] + between.next] - row.line[left[x]]);
        shares[x] = static_cast<float>(255 - alpha[x]) * (1.0f / 255.0f) * gate;
        most = std::max(most, shares[x]);
    }
    if (most <= 0.0f) return;
    for (int x = count; x < kRun; ++x) shares[x] = 0.0f;
    for (int x = 0; x < kRun; x += 16) store_thrice(wide + 3 * x, load<Sixteen>(shares + x));
    blend(row.image + 3 * first, row.plate + 3 * first, wide, 3 * count);
    if (row.values) blend(row.values + first, row.behind + first, shares, count);
}

DITTO_MULTIVERSION
void blend_row(const Row& row, const Between& between, int width) {
    int x = 0;
    for (; x + kRun <= width; x += kRun) blend_run(row, between, x, kRun);
    blend_run(row, between, x, width - x);
}

}  // namespace

void composite(const Image& image, const uint8_t* alpha, const uint8_t* plate, const Plane& gate, const Carried* carried) {
    const int rows = gate.height, columns = gate.width, width = image.width, height = image.height;
    Between between{std::vector<int>(width), std::vector<float>(width), columns > 1 ? 1 : 0};
    std::vector<float> line(columns);
    for (int x = 0; x < width; ++x) {
        const float u = std::min(std::max((x + 0.5f) * columns / width - 0.5f, 0.0f), static_cast<float>(columns - 1));
        between.left[x] = std::max(std::min(static_cast<int>(u), columns - 2), 0);
        between.part[x] = u - static_cast<float>(between.left[x]);
    }
    for (int y = 0; y < height; ++y) {
        const float v = std::min(std::max((y + 0.5f) * rows / height - 0.5f, 0.0f), static_cast<float>(rows - 1));
        const int top = std::max(std::min(static_cast<int>(v), rows - 2), 0);
        const float fy = v - static_cast<float>(top);
        const float* above = gate.data + static_cast<size_t>(top) * columns;
        const float* below = rows > 1 ? above + columns : above;
        float most = 0.0f;
        for (int i = 0; i < columns; ++i) {
            line[i] = above[i] + fy * (below[i] - above[i]);
            most = std::max(most, line[i]);
        }
        if (most <= 0.0f) continue;
        const size_t row = static_cast<size_t>(y) * width;
        blend_row({image.pixels + 3 * row, alpha + row, plate + 3 * row, line.data(), carried ? carried->out + row : nullptr,
                   carried ? carried->plate + row : nullptr},
                  between, width);
    }
}

}  // namespace ditto
