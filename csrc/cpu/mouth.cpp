// The inside of the mouth, painted pixel by pixel. The definition is ditto/ops/reference/mouth.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "dispatch.h"

namespace py = pybind11;

namespace {

constexpr int kChannels = 23;

struct Texture {
    const float* pixels;  // (height, width, 4), premultiplied
    int height, width;
};

inline float clamp01(float x) { return std::min(std::max(x, 0.0f), 1.0f); }

inline float step(float low, float high, float x) {
    const float u = clamp01((x - low) * (1.0f / (high - low)));
    return u * u * (3.0f - 2.0f * u);
}

// One bilinear sample laid over `out`, its light scaled by the tinted shade. Transparent outside the texture.
inline void lay_over(float* out, const Texture& texture, float column, float row, float shade, const float* tint) {
    if (!(column >= 0.0f && row >= 0.0f && column < texture.width - 1 && row < texture.height - 1)) return;
    const int x = static_cast<int>(column), y = static_cast<int>(row);
    const float fx = column - static_cast<float>(x), fy = row - static_cast<float>(y);
    const float* a = texture.pixels + 4 * (static_cast<size_t>(y) * texture.width + x);
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

inline int mirrored(int i, int size) {
    i %= 2 * size;
    return std::min(i, 2 * size - 1 - i);
}

DITTO_MULTIVERSION
void paint_rows(uint8_t* image, int stride, int left, int top, int right, int bottom, const float* columns, int count,
                const float* s, Texture upper, Texture lower, Texture own, const float* grain, int grain_size) {
    const float *cavity = s + 10, *tongue = s + 13, *tint = s + 37;
    const float last = static_cast<float>(count - 1), height_scale = s[18] - s[17];
    for (int y = top; y < bottom; ++y) {
        uint8_t* row = image + static_cast<size_t>(y) * stride;
        for (int x = left; x < right; ++x) {
            const float fx = static_cast<float>(x), fy = static_cast<float>(y);
            const float qx = s[0] * fx + s[1] * fy + s[2], qy = s[3] * fx + s[4] * fy + s[5];
            const float position = (qx - s[6]) * s[7];
            if (!(position >= 0.0f && position < last)) continue;
            const int cell = static_cast<int>(position);
            const float f = position - static_cast<float>(cell);
            const float *p = columns + static_cast<size_t>(cell) * kChannels, *q = p + kChannels;
            float c[kChannels];
            for (int i = 0; i < 5; ++i) c[i] = p[i] * (1.0f - f) + q[i] * f;
            const float from_upper = qy - c[0], from_lower = c[1] - qy;
            const float cover = clamp01(from_upper * c[2] / s[8] + 0.5f) + clamp01(from_lower * c[3] / s[8] + 0.5f);
            const float alpha = clamp01(cover - 1.0f) * c[4];
            if (alpha <= 1e-3f) continue;
            for (int i = 5; i < kChannels; ++i) c[i] = p[i] * (1.0f - f) + q[i] * f;

            const float sideways = (qx - s[16]) / s[19], side2 = sideways * sideways;
            const float height = (qy - (s[17] + 0.55f * height_scale * side2)) / height_scale;
            const float body = step(-0.15f, 0.45f, height) * step(1.25f, 0.70f, std::fabs(sideways));
            const float lit = (0.42f + 0.58f * step(0.0f, 1.1f, height)) * (1.0f - 0.28f * side2);
            const float groove = 1.0f - 0.10f * std::exp(-side2 / (0.13f * 0.13f)) * step(1.3f, 0.3f, height);
            const float weight = body * lit * groove * s[20];
            const float depth = 0.55f + 0.75f * clamp01(from_upper / s[21]);
            float out[3];
            for (int i = 0; i < 3; ++i) out[i] = cavity[i] * depth * (1.0f - weight) + tongue[i] * weight;

            lay_over(out, lower, c[9], qy * s[9] + c[10], c[11], tint);
            lay_over(out, upper, c[6], qy * s[9] + c[7], c[8], tint);
            if (s[22] > 0.0f)
                lay_over(out, own, s[23] * qx + s[24] * qy + s[25], s[26] * qx + s[27] * qy + s[28], s[22], tint);

            const float shadow = (s[29] + (1.0f - s[29]) * step(0.0f, 1.0f, from_upper / s[30])) *
                                 (s[31] + (1.0f - s[31]) * step(0.0f, 1.0f, from_lower / s[32]));
            const float dim = 0.4f * (1.0f - shadow), light = c[5], gone = (1.0f - light) * (1.0f - light);
            for (int i = 0; i < 3; ++i) {
                out[i] = out[i] * (shadow * (1.0f + tint[i] * (1.0f - shadow))) + cavity[i] * dim;
                out[i] = out[i] * (light * (1.0f + tint[i] * (1.0f - light))) + c[12 + i] * gone;
            }
            for (int lip = 0; lip < 2; ++lip) {
                const float distance = lip ? from_upper : from_lower, thick = c[21 + lip];
                const float inward = clamp01(distance / std::max(thick, 1e-4f));
                const float roll = (1.0f - step(0.0f, 1.0f, inward)) * clamp01(thick / 0.004f);
                const float shade = (1.0f - s[33 + lip] * inward) * roll;
                for (int i = 0; i < 3; ++i) out[i] = out[i] * (1.0f - roll) + c[15 + 3 * lip + i] * shade;
            }
            float noise = 0.0f;
            if (s[35] > 0.0f) {
                const int gx = mirrored(static_cast<int>(std::fabs(qx * s[36])), grain_size);
                const int gy = mirrored(static_cast<int>(std::fabs(qy * s[36] + 3.0f * grain_size)), grain_size);
                noise = grain[static_cast<size_t>(gy) * grain_size + gx] * s[35];
            }
            for (int i = 0; i < 3; ++i) {
                const float before = row[3 * x + i];
                const float after = before + (out[i] + noise - before) * alpha;
                row[3 * x + i] = static_cast<uint8_t>(std::min(std::max(after + 0.5f, 0.0f), 255.0f));
            }
        }
    }
}

using U8 = py::array_t<uint8_t, py::array::c_style>;
using F32 = py::array_t<float, py::array::c_style>;

Texture texture_of(const F32& a) {
    return {a.data(), static_cast<int>(a.shape(0)), static_cast<int>(a.shape(1))};
}

void paint_mouth(U8& image, int left, int top, int right, int bottom, const F32& columns, const F32& scene,
                 const F32& upper, const F32& lower, const F32& own, const F32& grain) {
    const int stride = static_cast<int>(image.shape(1)) * 3, count = static_cast<int>(columns.shape(0));
    const Texture textures[3] = {texture_of(upper), texture_of(lower), texture_of(own)};
    uint8_t* pixels = image.mutable_data();
    const float *across = columns.data(), *numbers = scene.data(), *noise = grain.data();
    const int grain_size = static_cast<int>(grain.shape(0));
    py::gil_scoped_release release;
    paint_rows(pixels, stride, left, top, right, bottom, across, count, numbers, textures[0], textures[1], textures[2],
               noise, grain_size);
}

DITTO_MULTIVERSION
void smooth_rows(uint8_t* image, const uint8_t* before, int width, int height, int patch_top, int left, int top,
                 int right, int bottom, float cx, float cy, float ux, float uy, float scale, float amount, float reach,
                 float half) {
    for (int y = top; y < bottom; ++y) {
        for (int x = left; x < right; ++x) {
            const float fx = static_cast<float>(x), fy = static_cast<float>(y);
            const float dx = (fx - cx) / scale, dy = (fy - cy) / scale;
            const float along = dx * ux + dy * uy, across = dy * ux - dx * uy;
            const float weight = amount * step(-0.020f, 0.012f, along) * step(reach, 0.07f, along) *
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

void smooth_corner(U8& image, int left, int top, int right, int bottom, float cx, float cy, float ux, float uy,
                   float scale, float amount, float reach, float half) {
    const int height = static_cast<int>(image.shape(0)), width = static_cast<int>(image.shape(1));
    uint8_t* pixels = image.mutable_data();
    py::gil_scoped_release release;
    // Rows the fill may come from, copied before any is changed.
    const int spare = static_cast<int>(std::ceil(2.5f * half * scale)) + 2;
    const int first = std::max(top - spare, 0), end = std::min(bottom + spare, height);
    const std::vector<uint8_t> before(pixels + 3 * static_cast<size_t>(first) * width,
                                      pixels + 3 * static_cast<size_t>(end) * width);
    smooth_rows(pixels, before.data(), width, height, first, left, top, right, bottom, cx, cy, ux, uy, scale, amount,
                reach, half);
}

}  // namespace

void bind_mouth(py::module_& m) {
    m.def("paint_mouth", &paint_mouth, py::arg("image").noconvert(), py::arg("left"), py::arg("top"), py::arg("right"),
          py::arg("bottom"), py::arg("columns"), py::arg("scene"), py::arg("upper"), py::arg("lower"), py::arg("own"),
          py::arg("grain"));
    m.def("smooth_corner", &smooth_corner, py::arg("image").noconvert(), py::arg("left"), py::arg("top"),
          py::arg("right"), py::arg("bottom"), py::arg("cx"), py::arg("cy"), py::arg("ux"), py::arg("uy"),
          py::arg("scale"), py::arg("amount"), py::arg("reach"), py::arg("half"));
}
