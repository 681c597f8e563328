// SPADE between two convolutions: instance norm, a scale and a shift for every pixel, leaky ReLU. The definition is
// ditto/ops/reference/neural.py; SPADE (arXiv:1903.07291), eq. 1.
//
// kLanes threads share a plane, one channel of one image. Each adds every kLanes-th pixel, then the sums are added as a
// tree: the same order, hence the same bits, on both devices and in both layouts.
#pragma once
#include "portable.h"

namespace ditto::cuda {

constexpr int kLanes = 256;  // threads of a plane; a power of two

struct SpadeShape {
    int batch, channels, pixels;
    bool last;  // channels last: (batch, pixels, channels), else (batch, channels, pixels)
    float epsilon, slope;
};

// Where a plane begins, and from each of its pixels to the next.
DITTO_BOTH int64_t plane_start(const SpadeShape& shape, int image, int channel) {
    const int64_t plane = static_cast<int64_t>(image) * shape.channels;
    return shape.last ? plane * shape.pixels + channel : (plane + channel) * shape.pixels;
}
DITTO_BOTH int64_t pixel_stride(const SpadeShape& shape) { return shape.last ? shape.channels : 1; }

template <class T>
DITTO_BOTH float lane_sum(const T* x, int pixels, int64_t stride, int lane) {
    float sum = 0.0f;
    for (int i = lane; i < pixels; i += kLanes) sum += static_cast<float>(x[i * stride]);
    return sum;
}

template <class T>
DITTO_BOTH float lane_squares(const T* x, int pixels, int64_t stride, float mean, int lane) {
    float sum = 0.0f;
    for (int i = lane; i < pixels; i += kLanes) {
        const float d = static_cast<float>(x[i * stride]) - mean;
        sum += d * d;
    }
    return sum;
}

// One step of the tree, for lane < step: kLanes / 2, ..., 2, 1. Sums lie `apart`.
DITTO_BOTH void add_lanes(float* sums, int lane, int step, int apart) { sums[lane * apart] += sums[(lane + step) * apart]; }

DITTO_BOTH float inverse_deviation(float squares, int pixels, float epsilon) {
    return 1.0f / sqrtf(squares / static_cast<float>(pixels) + epsilon);
}

template <class T>
DITTO_BOTH void modulate_lane(const T* x, const T* gamma, const T* beta, int pixels, int64_t stride, float mean,
                              float inverse, float slope, int lane, T* out) {
    for (int i = lane; i < pixels; i += kLanes) {
        const int64_t at = i * stride;
        const float normal = (static_cast<float>(x[at]) - mean) * inverse;
        const float y = normal * (1.0f + static_cast<float>(gamma[at])) + static_cast<float>(beta[at]);
        out[at] = static_cast<T>(y < 0.0f ? y * slope : y);
    }
}

}  // namespace ditto::cuda
