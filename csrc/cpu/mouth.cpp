// The inside of the mouth, painted pixel by pixel. The definition is ditto/ops/reference/mouth.py.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "dispatch.h"

namespace ditto {

namespace {

constexpr int kChannels = kMouthChannels;

// One column of the mouth; the order is that of Channel in the reference.
enum Channel {
    kUpperLip, kLowerLip, kUpperSteepness, kLowerSteepness, kShown, kLight,
    kUpperTeeth, kLowerTeeth = 9, kSeam = 12, kLowerRim = 15, kUpperRim = 18, kLowerRoll = 21, kUpperRoll
};

inline float clamp01(float x) { return std::min(std::max(x, 0.0f), 1.0f); }

inline float step(float low, float high, float x) {
    const float u = clamp01((x - low) * (1.0f / (high - low)));
    return u * u * (3.0f - 2.0f * u);
}

// One bilinear sample laid over `out`, its light scaled by the tinted shade. Transparent outside the texture.
inline void lay_over(float* out, const Plane& texture, float column, float row, float shade, const float* tint) {
    if (!(column >= 0.0f && row >= 0.0f && column < texture.width - 1 && row < texture.height - 1)) return;
    const int x = static_cast<int>(column), y = static_cast<int>(row);
    const float fx = column - static_cast<float>(x), fy = row - static_cast<float>(y);
    const float* a = texture.data + 4 * (static_cast<size_t>(y) * texture.width + x);
    const float* b = a + 4 * static_cast<size_t>(texture.width);
    float sample[4];
    for (int i = 0; i < 4; ++i) {
        const float top = a[i] * (1.0f - fx) + a[4 + i] * fx;
        sample[i] = top * (1.0f - fy) + (b[i] * (1.0f - fx) + b[4 + i] * fx) * fy;
    }
    for (int i = 0; i < 3; ++i) {
        const float light = shade * (1.0f + tint[i] * (1.0f - shade));
        out[i] = out[i] * (1.0f - sample[3]) + sample[i] * light;
    }
}

// Where position i, and the one after it, lie in noise that is mirrored beyond its border.
struct Mirrored {
    int first, second;
    Mirrored(int i, int size) {
        i %= 2 * size;
        const int next = i + 1 < 2 * size ? i + 1 : 0;
        first = std::min(i, 2 * size - 1 - i);
        second = std::min(next, 2 * size - 1 - next);
    }
};

// Linear between neighbours, at the strength that noise has on them: it neither jumps nor fades as it moves.
inline float grain_at(const float* grain, int size, float x, float y) {
    constexpr float kWhole = 1e9f;  // farther out than any face; held here so that whole numbers do not run out
    x = x < kWhole ? x : 0.0f;
    y = y < kWhole ? y : 0.0f;
    const int column = static_cast<int>(x), row = static_cast<int>(y);
    const float fx = x - static_cast<float>(column), fy = y - static_cast<float>(row), gx = 1.0f - fx, gy = 1.0f - fy;
    const Mirrored across(column, size), down(row, size);
    const float* top = grain + static_cast<size_t>(down.first) * size;
    const float* bottom = grain + static_cast<size_t>(down.second) * size;
    const float mean = (top[across.first] * gx + top[across.second] * fx) * gy +
                       (bottom[across.first] * gx + bottom[across.second] * fx) * fy;
    return mean / std::sqrt((gx * gx + fx * fx) * (gy * gy + fy * fy));
}

DITTO_MULTIVERSION
void paint_rows(uint8_t* image, int stride, const Box& box, const float* columns, int count, const MouthScene& s,
                const Teeth& teeth, const float* grain, int grain_size) {
    const float last = static_cast<float>(count - 1), length = s.tongue_tip - s.tongue_back;
    for (int row = box.top; row < box.bottom; ++row) {
        uint8_t* pixels = image + static_cast<size_t>(row) * stride;
        for (int column = box.left; column < box.right; ++column) {
            const float px = static_cast<float>(column), py = static_cast<float>(row);
            const float x = s.x_from_px[0] * px + s.x_from_px[1] * py + s.x_from_px[2];
            const float y = s.y_from_px[0] * px + s.y_from_px[1] * py + s.y_from_px[2];
            const float position = (x - s.left) * s.columns_per_unit;
            if (!(position >= 0.0f && position < last)) continue;
            const int cell = static_cast<int>(position);
            const float part = position - static_cast<float>(cell);
            const float *p = columns + static_cast<size_t>(cell) * kChannels, *q = p + kChannels;
            float c[kChannels];
            for (int i = 0; i < kLight; ++i) c[i] = p[i] * (1.0f - part) + q[i] * part;
            const float from_upper = y - c[kUpperLip], from_lower = c[kLowerLip] - y;
            const float cover = clamp01(from_upper * c[kUpperSteepness] / s.edge_px + 0.5f) +
                                clamp01(from_lower * c[kLowerSteepness] / s.edge_px + 0.5f);
            const float alpha = clamp01(cover - 1.0f) * c[kShown];
            if (alpha <= 1e-3f) continue;
            for (int i = kLight; i < kChannels; ++i) c[i] = p[i] * (1.0f - part) + q[i] * part;

            const float sideways = (x - s.tongue_middle) / s.tongue_half_width, square = sideways * sideways;
            const float height = (y - (s.tongue_back + 0.55f * length * square)) / length;
            const float body = step(-0.15f, 0.45f, height) * step(1.25f, 0.70f, std::fabs(sideways));
            const float lit = (0.42f + 0.58f * step(0.0f, 1.1f, height)) * (1.0f - 0.28f * square);
            const float groove = 1.0f - 0.10f * std::exp(-square / (0.13f * 0.13f)) * step(1.3f, 0.3f, height);
            const float weight = body * lit * groove * s.tongue_light;
            const float depth = 0.55f + 0.75f * clamp01(from_upper / s.widest);
            float out[3];
            for (int i = 0; i < 3; ++i) out[i] = s.cavity[i] * depth * (1.0f - weight) + s.tongue[i] * weight;

            const float line = y * s.teeth_per_unit;
            lay_over(out, teeth.lower, c[kLowerTeeth], line + c[kLowerTeeth + 1], c[kLowerTeeth + 2], s.tint);
            lay_over(out, teeth.upper, c[kUpperTeeth], line + c[kUpperTeeth + 1], c[kUpperTeeth + 2], s.tint);
            if (s.own_shade > 0.0f)
                lay_over(out, teeth.own, s.own_column[0] * x + s.own_column[1] * y + s.own_column[2],
                         s.own_row[0] * x + s.own_row[1] * y + s.own_row[2], s.own_shade, s.tint);

            const float shadow =
                (s.upper_shadow + (1.0f - s.upper_shadow) * step(0.0f, 1.0f, from_upper / s.upper_reach)) *
                (s.lower_shadow + (1.0f - s.lower_shadow) * step(0.0f, 1.0f, from_lower / s.lower_reach));
            const float dim = 0.4f * (1.0f - shadow), light = c[kLight], gone = (1.0f - light) * (1.0f - 0.4f * light);
            for (int i = 0; i < 3; ++i) {
                out[i] = out[i] * (shadow * (1.0f + s.tint[i] * (1.0f - shadow))) + s.cavity[i] * dim;
                out[i] = out[i] * (light * (1.0f + s.tint[i] * (1.0f - light))) + c[kSeam + i] * gone;
            }
            for (int side = 0; side < 2; ++side) {
                const float roll = c[kLowerRoll + side];
                const float inward = clamp01((side ? from_upper : from_lower) / std::max(roll, 1e-4f));
                const float lip = (1.0f - step(0.0f, 1.0f, inward)) * clamp01(roll / 0.004f);
                const float shade = (1.0f - (side ? s.upper_roll_shade : s.lower_roll_shade) * inward) * lip;
                for (int i = 0; i < 3; ++i) out[i] = out[i] * (1.0f - lip) + c[kLowerRim + 3 * side + i] * shade;
            }
            float noise = 0.0f;
            if (s.grain > 0.0f)
                noise = s.grain * grain_at(grain, grain_size, std::fabs(x * s.grain_per_unit),
                                           std::fabs(y * s.grain_per_unit + 3.0f * grain_size));
            for (int i = 0; i < 3; ++i) {
                const float before = pixels[3 * column + i];
                const float after = before + (out[i] + noise - before) * alpha;
                pixels[3 * column + i] = static_cast<uint8_t>(std::min(std::max(after + 0.5f, 0.0f), 255.0f));
            }
        }
    }
}

DITTO_MULTIVERSION
void smooth_rows(uint8_t* image, const uint8_t* before, int width, int height, int patch_top, const Box& box,
                 const Corner& corner) {
    const float ux = corner.outwards_x, uy = corner.outwards_y, scale = corner.scale, half = corner.half;
    for (int y = box.top; y < box.bottom; ++y) {
        for (int x = box.left; x < box.right; ++x) {
            const float fx = static_cast<float>(x), fy = static_cast<float>(y);
            const float dx = (fx - corner.x) / scale, dy = (fy - corner.y) / scale;
            const float along = dx * ux + dy * uy, across = dy * ux - dx * uy;
            const float weight = corner.amount * step(-0.020f, 0.012f, along) * step(corner.reach, 0.07f, along) *
                                 step(half, 0.014f, std::fabs(across));
            if (weight <= 0.0f) continue;
            float fill[2][3];
            for (int end = 0; end < 2; ++end) {
                const float shift = ((end ? half : -half) - across) * scale;
                const float px = std::min(std::max(fx - uy * shift, 0.0f), width - 1.001f);
                const float py = std::min(std::max(fy + ux * shift, 0.0f), height - 1.001f);
                const int column = static_cast<int>(px), line = static_cast<int>(py);
                const float gx = px - static_cast<float>(column), gy = py - static_cast<float>(line);
                const uint8_t* a = before + 3 * (static_cast<size_t>(line - patch_top) * width + column);
                const uint8_t* b = a + 3 * static_cast<size_t>(width);
                for (int i = 0; i < 3; ++i)
                    fill[end][i] = (a[i] * (1.0f - gx) + a[3 + i] * gx) * (1.0f - gy) +
                                   (b[i] * (1.0f - gx) + b[3 + i] * gx) * gy;
            }
            const float share = clamp01(across / (2.0f * half) + 0.5f);
            uint8_t* pixel = image + 3 * (static_cast<size_t>(y) * width + x);
            for (int i = 0; i < 3; ++i) {
                const float own = pixel[i];
                const float skin = fill[0][i] * (1.0f - share) + fill[1][i] * share;
                const float lifted = own + 0.85f * std::max(skin - own, 0.0f) * weight;
                pixel[i] = static_cast<uint8_t>(std::min(std::max(lifted + 0.5f, 0.0f), 255.0f));
            }
        }
    }
}

}  // namespace

void paint_mouth(const Image& image, const Box& box, const float* columns, int count, const MouthScene& scene,
                 const Teeth& teeth, const Plane& grain) {
    paint_rows(image.pixels, 3 * image.width, box, columns, count, scene, teeth, grain.data, grain.height);
}

void smooth_corner(const Image& image, const Box& box, const Corner& corner) {
    if (box.right <= box.left || box.bottom <= box.top) return;
    // Rows the fill may come from, copied before any is changed.
    const int spare = static_cast<int>(std::ceil(2.5f * corner.half * corner.scale)) + 2;
    const int first = std::max(box.top - spare, 0), end = std::min(box.bottom + spare, image.height);
    const std::vector<uint8_t> before(image.pixels + 3 * static_cast<size_t>(first) * image.width,
                                      image.pixels + 3 * static_cast<size_t>(end) * image.width);
    smooth_rows(image.pixels, before.data(), image.width, image.height, first, box, corner);
}

}  // namespace ditto
