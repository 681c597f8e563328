// SPADE between two convolutions: instance norm, a scale and a shift for every pixel, leaky ReLU. The definition is
// ditto/ops/reference/neural.py; SPADE (arXiv:1903.07291), eq. 1.
//
// kLanes threads share a plane. Each adds every kLanes-th pixel, then the sums are added as a tree: the same order on both
// devices.
#pragma once
#include "portable.h"

namespace ditto::cuda {

constexpr int kLanes = 256;  // threads of a block; a power of two

template <class T>
DITTO_BOTH float lane_sum(const T* x, int pixels, int lane) {
    float sum = 0.0f;
    for (int i = lane; i < pixels; i += kLanes) sum += static_cast<float>(x[i]);
    return sum;
}

template <class T>
DITTO_BOTH float lane_squares(const T* x, int pixels, float mean, int lane) {
    float sum = 0.0f;
    for (int i = lane; i < pixels; i += kLanes) {
        const float d = static_cast<float>(x[i]) - mean;
        sum += d * d;
    }
    return sum;
}

// One step of the tree, for lane < step: kLanes / 2, ..., 2, 1.
DITTO_BOTH void add_lanes(float* sums, int lane, int step) { sums[lane] += sums[lane + step]; }

DITTO_BOTH float inverse_deviation(float squares, int pixels, float epsilon) {
    return 1.0f / sqrtf(squares / static_cast<float>(pixels) + epsilon);
}

template <class T>
DITTO_BOTH void modulate_lane(const T* x, const T* gamma, const T* beta, int pixels, float mean, float inverse, float slope,
                              int lane, T* out) {
    for (int i = lane; i < pixels; i += kLanes) {
        const float normal = (static_cast<float>(x[i]) - mean) * inverse;
        const float y = normal * (1.0f + static_cast<float>(gamma[i])) + static_cast<float>(beta[i]);
        out[i] = static_cast<T>(y < 0.0f ? y * slope : y);
    }
}

}  // namespace ditto::cuda
