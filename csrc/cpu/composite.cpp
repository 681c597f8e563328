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

// `count` pixels from column `first` on, at most kRun. `line` is the gate in this row.
template <int kChannels>
DITTO_PART void blend_run(uint8_t* image, const uint8_t* alpha, const uint8_t* plate, const float* line, const int* left,
                      const float* part, int next, int count) {
    int least = 255;
    for (int x = 0; x < count; ++x) least = std::min(least, static_cast<int>(alpha[x]));
    if (least == 255) return;
    float shares[kRun], wide[kChannels * kRun], most = 0.0f;
    for (int x = 0; x < count; ++x) {
        const float gate = line[left[x]] + part[x] * (line[left[x] + next] - line[left[x]]);
        shares[x] = static_cast<float>(255 - alpha[x]) * (1.0f / 255.0f) * gate;
        most = std::max(most, shares[x]);
    }
    if (most <= 0.0f) return;
    for (int x = count; x < kRun; ++x) shares[x] = 0.0f;
    if (kChannels == 3)
        for (int x = 0; x < kRun; x += 16) store_thrice(wide + 3 * x, load<Sixteen>(shares + x));
    else
        for (int x = 0; x < kRun; ++x) wide[x] = shares[x];
    for (int i = 0; i < kChannels * count; ++i) {
        const float own = image[i];
        image[i] = static_cast<uint8_t>(own + wide[i] * (static_cast<float>(plate[i]) - own) + 0.5f);
    }
}

template <int kChannels>
DITTO_PART void blend_runs(uint8_t* image, const uint8_t* alpha, const uint8_t* plate, const float* line, const Between& between,
               int width) {
    const int *left = between.left.data(), next = between.next;
    const float* part = between.part.data();
    int x = 0;
    for (; x + kRun <= width; x += kRun)
        blend_run<kChannels>(image + kChannels * x, alpha + x, plate + kChannels * x, line, left + x, part + x, next, kRun);
    blend_run<kChannels>(image + kChannels * x, alpha + x, plate + kChannels * x, line, left + x, part + x, next, width - x);
}

using BlendRow = void (*)(uint8_t*, const uint8_t*, const uint8_t*, const float*, const Between&, int);

DITTO_MULTIVERSION
void blend_colours(uint8_t* image, const uint8_t* alpha, const uint8_t* plate, const float* line, const Between& between,
                   int width) {
    blend_runs<3>(image, alpha, plate, line, between, width);
}

DITTO_MULTIVERSION
void blend_plane(uint8_t* image, const uint8_t* alpha, const uint8_t* plate, const float* line, const Between& between,
                 int width) {
    blend_runs<1>(image, alpha, plate, line, between, width);
}

void blend(uint8_t* pixels, int height, int width, int channels, BlendRow blend_row, const uint8_t* alpha,
           const uint8_t* plate, const Plane& gate) {
    const int rows = gate.height, columns = gate.width;
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
        blend_row(pixels + channels * row, alpha + row, plate + channels * row, line.data(), between, width);
    }
}

}  // namespace

void composite(const Image& image, const uint8_t* alpha, const uint8_t* plate, const Plane& gate) {
    blend(image.pixels, image.height, image.width, 3, blend_colours, alpha, plate, gate);
}

void composite_plane(uint8_t* plane, int height, int width, const uint8_t* alpha, const uint8_t* plate, const Plane& gate) {
    blend(plane, height, width, 1, blend_plane, alpha, plate, gate);
}

}  // namespace ditto
