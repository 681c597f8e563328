// A rendered crop blended into its part of the picture. The definition is ditto/ops/reference/neural.py.
#pragma once
#include "portable.h"

namespace ditto::cuda {

// One channel of one pixel: image (3, side, side) 0 .. 1, indices and weights (4, count), rest (3, count) 0 .. 255,
// out (count, 3). NaN becomes 0.
DITTO_BOTH void blend_crop_at(const float* image, int side, const int* indices, const float* weights, const float* rest,
                              int count, int pixel, int channel, uint8_t* out) {
    const float* plane = image + static_cast<int64_t>(channel) * side * side;
    float sum = 0.0f;
    for (int tap = 0; tap < 4; ++tap) {
        const int64_t at = static_cast<int64_t>(tap) * count + pixel;
        const float value = plane[indices[at]];
        const float level = (value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f) * 255.0f;
        sum += level * weights[at];
    }
    sum += rest[static_cast<int64_t>(channel) * count + pixel];
    out[static_cast<int64_t>(pixel) * 3 + channel] = static_cast<uint8_t>(sum > 0.0f ? (sum < 255.0f ? sum : 255.0f) : 0.0f);
}

}  // namespace ditto::cuda
