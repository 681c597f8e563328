// The kernel bodies in loops on the CPU, for the tests: the same functions as kernels.cu, `stream` unused.
#include <vector>

#include "blend_crop.h"
#include "dense_motion.h"
#include "kernels.h"
#include "spade.h"

using namespace ditto::cuda;

namespace {

float add_all(std::vector<float>& sums) {
    for (int step = kLanes / 2; step > 0; step /= 2)
        for (int lane = 0; lane < step; ++lane) add_lanes(sums.data(), lane, step);
    return sums[0];
}

}  // namespace

int ditto_blend_crop(const float* image, int side, const int* indices, const float* weights, const float* rest, int count,
                     uint8_t* out, void*) {
    for (int channel = 0; channel < 3; ++channel)
        for (int pixel = 0; pixel < count; ++pixel)
            blend_crop_at(image, side, indices, weights, rest, count, pixel, channel, out);
    return 0;
}

int ditto_spade(const void* x, const void* gamma, const void* beta, int planes, int pixels, float epsilon, float slope,
                int type, void* out, void*) {
    if (type != 0) return 1;
    std::vector<float> sums(kLanes);
    for (int plane = 0; plane < planes; ++plane) {
        const int64_t start = static_cast<int64_t>(plane) * pixels;
        const float* from = static_cast<const float*>(x) + start;
        for (int lane = 0; lane < kLanes; ++lane) sums[lane] = lane_sum(from, pixels, lane);
        const float mean = add_all(sums) / static_cast<float>(pixels);
        for (int lane = 0; lane < kLanes; ++lane) sums[lane] = lane_squares(from, pixels, mean, lane);
        const float inverse = inverse_deviation(add_all(sums), pixels, epsilon);
        for (int lane = 0; lane < kLanes; ++lane)
            modulate_lane(from, static_cast<const float*>(gamma) + start, static_cast<const float*>(beta) + start, pixels,
                          mean, inverse, slope, lane, static_cast<float*>(out) + start);
    }
    return 0;
}

int ditto_dense_motion(const float* volume, const float* source, const float* driving, const float* x, const float* y,
                       const float* z, int batch, int keypoints, int channels, int depth, int height, int width,
                       float sharpness, float* out, void*) {
    const MotionInputs in{volume, source, driving, x, y, z, keypoints, channels, depth, height, width, sharpness};
    for (int b = 0; b < batch; ++b)
        for (int motion = 0; motion <= keypoints; ++motion)
            for (int voxel = 0; voxel < depth * height * width; ++voxel) dense_motion_at(in, b, motion, voxel, out);
    return 0;
}
