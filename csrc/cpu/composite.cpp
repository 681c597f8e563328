// The warped person over the background plate. The definition is ditto/ops/reference/composite.py.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "dispatch.h"

namespace ditto {

namespace {

// What the plate takes of each pixel of a row; true if it takes anything.
DITTO_MULTIVERSION
bool plate_shares(const uint8_t* alpha, const float* gate, int width, float* shares) {
    float most = 0.0f;
    for (int x = 0; x < width; ++x) {
        const float share = static_cast<float>(255 - alpha[x]) * (1.0f / 255.0f) * gate[x];
        shares[3 * x] = shares[3 * x + 1] = shares[3 * x + 2] = share;
        most = std::max(most, share);
    }
    return most > 0.0f;
}

DITTO_MULTIVERSION
void blend_row(uint8_t* image, const uint8_t* plate, const float* shares, int count) {
    for (int i = 0; i < count; ++i) {
        const float own = image[i];
        image[i] = static_cast<uint8_t>(own + shares[i] * (static_cast<float>(plate[i]) - own) + 0.5f);
    }
}

}  // namespace

void composite(const Image& image, const uint8_t* alpha, const uint8_t* plate, const Plane& gate) {
    const int height = image.height, width = image.width, rows = gate.height, columns = gate.width;
    std::vector<int> left(width);
    std::vector<float> part(width), line(columns), wide(width), shares(3 * static_cast<size_t>(width));
    for (int x = 0; x < width; ++x) {
        const float u = std::min(std::max((x + 0.5f) * columns / width - 0.5f, 0.0f), static_cast<float>(columns - 1));
        left[x] = std::max(std::min(static_cast<int>(u), columns - 2), 0);
        part[x] = u - static_cast<float>(left[x]);
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
        const int next = columns > 1 ? 1 : 0;
        for (int x = 0; x < width; ++x) wide[x] = line[left[x]] + part[x] * (line[left[x] + next] - line[left[x]]);
        const size_t row = static_cast<size_t>(y) * width;
        if (plate_shares(alpha + row, wide.data(), width, shares.data()))
            blend_row(image.pixels + 3 * row, plate + 3 * row, shares.data(), 3 * width);
    }
}

}  // namespace ditto
