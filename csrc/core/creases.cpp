#include <algorithm>
#include <cmath>

#include "core/layers.h"

namespace ditto {

namespace {

// creases.py
constexpr float kReliefStep = 1.0f / 512, kFlat = 128.0f, kDeepest = 0.15f;
constexpr double kShallower = 0.6, kDeeper = 2.0;  // STRENGTH

void find_strengths(const Pose& pose, double* strength) {
    const Vec3* d = pose.delta;
    const double right = 0.5 * ((-d[kRightCorner][0] - d[kRightCorner][1]) / 0.12 - d[kRightCheek][1] / 0.05);
    const double left = 0.5 * ((d[kLeftCorner][0] - d[kLeftCorner][1]) / 0.12 - d[kLeftCheek][1] / 0.05);
    const double down = 0.5 * (d[kRightBrow][1] + d[kLeftBrow][1]), together = 0.5 * (d[kRightBrow][0] - d[kLeftBrow][0]);
    const double amounts[kCreases] = {right, left, right, left, -down / 0.055, (together + 0.4 * down) / 0.042};
    for (int k = 0; k < kCreases; ++k) strength[k] = (amounts[k] > 0.0 ? kDeeper : kShallower) * std::tanh(amounts[k]);
}

void deepen(const Crease& crease, const Box& box, const float* map, const std::vector<Part>& parts, float strength,
            const double* tint, const Image& image) {
    const size_t pixels = static_cast<size_t>(image.height) * image.width;
    const float x0 = static_cast<float>(crease.corner[0]), y0 = static_cast<float>(crease.corner[1]), share = kReliefStep * strength;
    const float right = static_cast<float>(crease.width - 1), bottom = static_cast<float>(crease.height - 1);
    const float colour[3] = {static_cast<float>(tint[0]), static_cast<float>(tint[1]), static_cast<float>(tint[2])};
    const Part* end = parts.data() + parts.size();
    const auto light_at = [&](float x, float y) {
        const float u = x - x0, v = y - y0;
        if (!(u > 0.0f && v > 0.0f && u < right && v < bottom)) return 0.0f;
        const int i = std::min(static_cast<int>(u), crease.width - 2), j = std::min(static_cast<int>(v), crease.height - 2);
        const uint8_t *a = crease.relief + static_cast<size_t>(j) * crease.width + i, *b = a + crease.width;
        const float fx = u - static_cast<float>(i), fy = v - static_cast<float>(j);
        const float above = a[0] + fx * static_cast<float>(a[1] - a[0]), below = b[0] + fx * static_cast<float>(b[1] - b[0]);
        return std::min(std::max((above + fy * (below - above) - kFlat) * share, -kDeepest), kDeepest);
    };
    for (int y = box.top; y < box.bottom; ++y) {
        const float *us = map + static_cast<size_t>(y) * image.width, *vs = us + pixels;
        uint8_t* row = image.pixels + 3 * static_cast<size_t>(y) * image.width;
        const int start = y * image.width;
        const Part* part = std::lower_bound(parts.data(), end, start + box.left, [](const Part& p, int pixel) { return p.pixel < pixel; });
        int next = part < end ? part->pixel - start : image.width;  // the next column that has parts
        for (int x = box.left; x < box.right; ++x) {
            float value = 0.0f;
            if (x == next) {
                for (; part < end && part->pixel == start + x; ++part) value += part->weight * light_at(part->x, part->y);
                next = part < end ? part->pixel - start : image.width;
            } else {
                value = light_at(us[x], vs[x]);
            }
            if (value == 0.0f) continue;
            for (int k = 0; k < 3; ++k) {
                const float light = row[3 * x + k] * (1.0f + value * colour[k]);
                row[3 * x + k] = static_cast<uint8_t>(std::min(std::max(light, 0.0f), 255.0f) + 0.5f);
            }
        }
    }
}

}  // namespace

void draw_creases(const Portrait& portrait, const Pose& pose, const float* map, const std::vector<Part>& parts, const Image& image) {
    double strength[kCreases];
    find_strengths(pose, strength);
    for (int k = 0; k < kCreases; ++k) {
        if (std::fabs(strength[k]) < 1e-3) continue;
        const Crease& crease = portrait.creases[k];
        double low[2] = {1e9, 1e9}, high[2] = {-1e9, -1e9};
        for (int i = 0; i < crease.count; ++i)
            for (int j = 0; j < 2; ++j) {
                const double at = pose.vertices[crease.landmarks[i]][j];
                low[j] = std::min(low[j], at);
                high[j] = std::max(high[j], at);
            }
        const auto inside = [](double x, int most) { return static_cast<int>(clip(x, 0.0, most)); };
        const Box box{inside(std::floor(low[0]), image.width), inside(std::floor(low[1]), image.height),
                      inside(std::ceil(high[0]) + 1, image.width), inside(std::ceil(high[1]) + 1, image.height)};
        deepen(crease, box, map, parts, static_cast<float>(strength[k]), portrait.crease_tint, image);
    }
}

}  // namespace ditto
