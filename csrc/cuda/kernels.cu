#include "kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "blend_crop.h"
#include "dense_motion.h"
#include "spade.h"

using namespace ditto::cuda;

namespace {

constexpr int kThreads = 256;

int blocks_for(int64_t items) { return static_cast<int>((items + kThreads - 1) / kThreads); }

__global__ void blend_crop(const float* image, int side, const int* indices, const float* weights, const float* rest,
                           int count, uint8_t* out) {
    const int pixel = blockIdx.x * kThreads + threadIdx.x;
    if (pixel < count) blend_crop_at(image, side, indices, weights, rest, count, pixel, blockIdx.y, out);
}

// The sum over all lanes, in every lane.
__device__ float add_all(float* sums, float own) {
    const int lane = threadIdx.x;
    __syncthreads();  // the sums of before have been read
    sums[lane] = own;
    for (int step = kLanes / 2; step > 0; step /= 2) {
        __syncthreads();
        if (lane < step) add_lanes(sums, lane, step);
    }
    __syncthreads();
    return sums[0];
}

template <class T>
__global__ void spade(const T* x, const T* gamma, const T* beta, int pixels, float epsilon, float slope, T* out) {
    __shared__ float sums[kLanes];
    const int64_t start = static_cast<int64_t>(blockIdx.x) * pixels;
    const int lane = threadIdx.x;
    const float mean = add_all(sums, lane_sum(x + start, pixels, lane)) / static_cast<float>(pixels);
    const float squares = add_all(sums, lane_squares(x + start, pixels, mean, lane));
    modulate_lane(x + start, gamma + start, beta + start, pixels, mean, inverse_deviation(squares, pixels, epsilon), slope,
                  lane, out + start);
}

template <class T>
void launch_spade(const void* x, const void* gamma, const void* beta, int planes, int pixels, float epsilon, float slope,
                  void* out, cudaStream_t stream) {
    spade<T><<<planes, kLanes, 0, stream>>>(static_cast<const T*>(x), static_cast<const T*>(gamma),
                                            static_cast<const T*>(beta), pixels, epsilon, slope, static_cast<T*>(out));
}

__global__ void dense_motion(MotionInputs in, float* out) {
    const int voxel = blockIdx.x * kThreads + threadIdx.x;
    if (voxel < in.depth * in.height * in.width) dense_motion_at(in, blockIdx.z, blockIdx.y, voxel, out);
}

}  // namespace

int ditto_blend_crop(const float* image, int side, const int* indices, const float* weights, const float* rest, int count,
                     uint8_t* out, void* stream) {
    if (count == 0) return 0;
    blend_crop<<<dim3(blocks_for(count), 3), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(image, side, indices, weights,
                                                                                            rest, count, out);
    return cudaGetLastError();
}

int ditto_spade(const void* x, const void* gamma, const void* beta, int planes, int pixels, float epsilon, float slope,
                int type, void* out, void* stream) {
    if (planes == 0) return 0;
    const auto queue = static_cast<cudaStream_t>(stream);
    if (type == 0) launch_spade<float>(x, gamma, beta, planes, pixels, epsilon, slope, out, queue);
    else if (type == 1) launch_spade<__half>(x, gamma, beta, planes, pixels, epsilon, slope, out, queue);
    else if (type == 2) launch_spade<__nv_bfloat16>(x, gamma, beta, planes, pixels, epsilon, slope, out, queue);
    else return cudaErrorInvalidValue;
    return cudaGetLastError();
}

int ditto_dense_motion(const float* volume, const float* source, const float* driving, const float* x, const float* y,
                       const float* z, int batch, int keypoints, int channels, int depth, int height, int width,
                       float sharpness, float* out, void* stream) {
    if (batch == 0) return 0;
    const MotionInputs in{volume, source, driving, x, y, z, keypoints, channels, depth, height, width, sharpness};
    const dim3 grid(blocks_for(static_cast<int64_t>(depth) * height * width), keypoints + 1, batch);
    dense_motion<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(in, out);
    return cudaGetLastError();
}
