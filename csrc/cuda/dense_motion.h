// What the dense motion network sees: for every keypoint, and first for the still background, the compressed volume moved
// by the keypoint and the difference of its heatmaps. Nothing is expanded in memory. The definition is
// ditto/ops/reference/neural.py; LivePortrait (arXiv:2407.03168), section 3.1.
#pragma once
#include "portable.h"

namespace ditto::cuda {

struct MotionInputs {
    const float *volume, *source, *driving;  // (B, channels, depth, height, width), (B, keypoints, 3) twice
    const float *x, *y, *z;                  // (width), (height), (depth): -1 .. 1
    int keypoints, channels, depth, height, width;
    float sharpness;  // of a heatmap, 1 / (2 variance)
};

// From -1 .. 1, the outer faces, to voxels.
DITTO_BOTH float voxel_of(float at, int size) { return ((at + 1.0f) * static_cast<float>(size) - 1.0f) / 2.0f; }

DITTO_BOTH float heat(float x, float y, float z, const float* keypoint, float sharpness) {
    const float dx = x - keypoint[0], dy = y - keypoint[1], dz = z - keypoint[2];
    return expf(-sharpness * (dx * dx + dy * dy + dz * dz));
}

// One voxel of one motion of one volume -> out (B, keypoints + 1, 1 + channels, depth, height, width).
DITTO_BOTH void dense_motion_at(const MotionInputs& in, int batch, int motion, int voxel, float* out) {
    const int plane = in.height * in.width, voxels = in.depth * plane;
    const float x = in.x[voxel % in.width], y = in.y[voxel / in.width % in.height], z = in.z[voxel / plane];
    float at[3] = {x, y, z};
    out += (static_cast<int64_t>(batch) * (in.keypoints + 1) + motion) * (1 + in.channels) * voxels + voxel;
    *out = 0.0f;
    if (motion > 0) {
        const int64_t which = 3 * (static_cast<int64_t>(batch) * in.keypoints + motion - 1);
        const float *source = in.source + which, *driving = in.driving + which;
        *out = heat(x, y, z, driving, in.sharpness) - heat(x, y, z, source, in.sharpness);
        for (int axis = 0; axis < 3; ++axis) at[axis] += source[axis] - driving[axis];
    }
    const float u = voxel_of(at[0], in.width), v = voxel_of(at[1], in.height), w = voxel_of(at[2], in.depth);
    const float fu = floorf(u), fv = floorf(v), fw = floorf(w);
    const float *volume = in.volume + static_cast<int64_t>(batch) * in.channels * voxels;
    // Everything outside is zero. The comparison also keeps NaN and numbers that no int holds away from the conversion.
    const bool near = fu >= -1.0f && fu < static_cast<float>(in.width) && fv >= -1.0f &&
                      fv < static_cast<float>(in.height) && fw >= -1.0f && fw < static_cast<float>(in.depth);
    const int left = near ? static_cast<int>(fu) : -2, top = near ? static_cast<int>(fv) : -2,
              front = near ? static_cast<int>(fw) : -2;
    for (int channel = 0; channel < in.channels; ++channel) {
        const float* from = volume + static_cast<int64_t>(channel) * voxels;
        float sum = 0.0f;
        for (int corner = 0; corner < 8; ++corner) {  // in the order of torch's grid_sample
            const int column = left + (corner & 1), row = top + (corner >> 1 & 1), layer = front + (corner >> 2);
            if (column < 0 || column >= in.width || row < 0 || row >= in.height || layer < 0 || layer >= in.depth) continue;
            const float across = corner & 1 ? u - fu : (fu + 1.0f) - u;
            const float down = corner >> 1 & 1 ? v - fv : (fv + 1.0f) - v;
            const float deep = corner >> 2 ? w - fw : (fw + 1.0f) - w;
            sum += from[layer * plane + row * in.width + column] * (across * down * deep);
        }
        out[static_cast<int64_t>(channel + 1) * voxels] = sum;
    }
}

}  // namespace ditto::cuda
