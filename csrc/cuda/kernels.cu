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
constexpr int kWarp = 32, kRows = 8;  // a block of channels last: channels side by side, lanes below one another

int blocks_for(int64_t items, int of = kThreads) { return static_cast<int>((items + of - 1) / of); }

// This library has a CUDA runtime of its own, which does not know the GPU that torch has made current.
template <class... Parameters, class... Arguments>
int launch(int device, void* stream, dim3 grid, dim3 block, void (*kernel)(Parameters...), Arguments... arguments) {
    const cudaError_t failed = cudaSetDevice(device);
    if (failed != cudaSuccess) return failed;
    cudaLaunchConfig_t how{};
    how.gridDim = grid;
    how.blockDim = block;
    how.stream = static_cast<cudaStream_t>(stream);
    return cudaLaunchKernelEx(&how, kernel, arguments...);
}

__global__ void blend_crop(const float* image, int side, const int* indices, const float* weights, const float* rest,
                           int count, uint8_t* out) {
    const int64_t pixel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (pixel < count) blend_crop_at(image, side, indices, weights, rest, count, static_cast<int>(pixel), blockIdx.y, out);
}

// Channels first: a block has a plane, its threads are the lanes.

// The sum over all lanes, in every lane.
__device__ float add_all(float* sums, float own) {
    const int lane = threadIdx.x;
    __syncthreads();  // the sums of before have been read
    sums[lane] = own;
    for (int step = kLanes / 2; step > 0; step /= 2) {
        __syncthreads();
        if (lane < step) add_lanes(sums, lane, step, 1);
    }
    __syncthreads();
    return sums[0];
}

template <class T>
__global__ void spade_first(SpadeShape shape, const T* x, const T* gamma, const T* beta, T* out) {
    __shared__ float sums[kLanes];
    const int64_t start = static_cast<int64_t>(blockIdx.x) * shape.pixels;
    const int lane = threadIdx.x, pixels = shape.pixels;
    const float mean = add_all(sums, lane_sum(x + start, pixels, 1, lane)) / static_cast<float>(pixels);
    const float squares = add_all(sums, lane_squares(x + start, pixels, 1, mean, lane));
    modulate_lane(x + start, gamma + start, beta + start, pixels, 1, mean, inverse_deviation(squares, pixels, shape.epsilon),
                  shape.slope, lane, out + start);
}

// Channels last: a warp reads 32 channels of a pixel. The lanes of a plane are in many blocks, so their sums go through
// memory: lane sums (batch, kLanes, channels), then mean and inverse deviation (batch, channels) each.

struct Place {
    int image, channel, lane;
};

__device__ Place place() {
    return {static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.x) * kWarp + static_cast<int>(threadIdx.x),
            static_cast<int>(blockIdx.y) * kRows + static_cast<int>(threadIdx.y)};
}

// Of the pixels, or with `mean` of their squared distances from it.
template <class T>
__global__ void spade_lanes(SpadeShape shape, const T* x, const float* mean, float* sums) {
    const Place at = place();
    if (at.channel >= shape.channels) return;
    const int64_t plane = static_cast<int64_t>(at.image) * shape.channels + at.channel;
    const T* from = x + plane_start(shape, at.image, at.channel);
    sums[(static_cast<int64_t>(at.image) * kLanes + at.lane) * shape.channels + at.channel] =
        mean ? lane_squares(from, shape.pixels, pixel_stride(shape), mean[plane], at.lane)
             : lane_sum(from, shape.pixels, pixel_stride(shape), at.lane);
}

// The mean of the lane sums, or with `deviation` the inverse deviation. A block has 32 channels.
__global__ void spade_tree(SpadeShape shape, const float* sums, bool deviation, float* out) {
    __shared__ float own[kLanes * kWarp];
    const int channel = static_cast<int>(blockIdx.x) * kWarp + static_cast<int>(threadIdx.x), row = threadIdx.y;
    const int64_t image = blockIdx.y;
    const bool inside = channel < shape.channels;
    for (int lane = row; lane < kLanes; lane += kRows)
        own[lane * kWarp + threadIdx.x] = inside ? sums[(image * kLanes + lane) * shape.channels + channel] : 0.0f;
    for (int step = kLanes / 2; step > 0; step /= 2) {
        __syncthreads();
        for (int lane = row; lane < step; lane += kRows) add_lanes(own + threadIdx.x, lane, step, kWarp);
    }
    __syncthreads();
    if (row || !inside) return;
    const float all = own[threadIdx.x];
    out[image * shape.channels + channel] =
        deviation ? inverse_deviation(all, shape.pixels, shape.epsilon) : all / static_cast<float>(shape.pixels);
}

template <class T>
__global__ void spade_last(SpadeShape shape, const T* x, const T* gamma, const T* beta, const float* mean,
                           const float* inverse, T* out) {
    const Place at = place();
    if (at.channel >= shape.channels) return;
    const int64_t plane = static_cast<int64_t>(at.image) * shape.channels + at.channel;
    const int64_t start = plane_start(shape, at.image, at.channel);
    modulate_lane(x + start, gamma + start, beta + start, shape.pixels, pixel_stride(shape), mean[plane], inverse[plane],
                  shape.slope, at.lane, out + start);
}

template <class T>
int spade(const SpadeShape& shape, const void* x_, const void* gamma_, const void* beta_, void* out_, float* scratch,
          int device, void* stream) {
    const T *x = static_cast<const T*>(x_), *gamma = static_cast<const T*>(gamma_), *beta = static_cast<const T*>(beta_);
    T* out = static_cast<T*>(out_);
    if (!shape.last) {
        const int64_t planes = static_cast<int64_t>(shape.batch) * shape.channels;
        return launch(device, stream, dim3(blocks_for(planes, 1)), dim3(kLanes), spade_first<T>, shape, x, gamma, beta, out);
    }
    const dim3 block(kWarp, kRows), grid(blocks_for(shape.channels, kWarp), kLanes / kRows, shape.batch);
    const dim3 trees(grid.x, shape.batch);
    float *mean = scratch, *inverse = mean + static_cast<int64_t>(shape.batch) * shape.channels;
    float* sums = inverse + static_cast<int64_t>(shape.batch) * shape.channels;
    const float* none = nullptr;
    int failed = launch(device, stream, grid, block, spade_lanes<T>, shape, x, none, sums);
    if (!failed) failed = launch(device, stream, trees, block, spade_tree, shape, sums, false, mean);
    if (!failed) failed = launch(device, stream, grid, block, spade_lanes<T>, shape, x, mean, sums);
    if (!failed) failed = launch(device, stream, trees, block, spade_tree, shape, sums, true, inverse);
    if (!failed) failed = launch(device, stream, grid, block, spade_last<T>, shape, x, gamma, beta, mean, inverse, out);
    return failed;
}

__global__ void dense_motion(MotionInputs in, float* out) {
    const int64_t voxel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (voxel < static_cast<int64_t>(in.depth) * in.height * in.width)
        dense_motion_at(in, blockIdx.z, blockIdx.y, static_cast<int>(voxel), out);
}

}  // namespace

int ditto_blend_crop(const float* image, int side, const int* indices, const float* weights, const float* rest, int count,
                     uint8_t* out, int device, void* stream) {
    if (count == 0) return 0;
    return launch(device, stream, dim3(blocks_for(count), 3), dim3(kThreads), blend_crop, image, side, indices, weights, rest,
                  count, out);
}

int ditto_spade(const void* x, const void* gamma, const void* beta, int batch, int channels, int pixels, int channels_last,
                float epsilon, float slope, int type, void* out, float* scratch, int device, void* stream) {
    if (batch == 0 || channels == 0 || pixels == 0) return 0;
    const SpadeShape shape{batch, channels, pixels, channels_last != 0, epsilon, slope};
    if (type == 0) return spade<float>(shape, x, gamma, beta, out, scratch, device, stream);
    if (type == 1) return spade<__half>(shape, x, gamma, beta, out, scratch, device, stream);
    if (type == 2) return spade<__nv_bfloat16>(shape, x, gamma, beta, out, scratch, device, stream);
    return cudaErrorInvalidValue;
}

int ditto_dense_motion(const float* volume, const float* source, const float* driving, const float* x, const float* y,
                       const float* z, int batch, int keypoints, int channels, int depth, int height, int width,
                       float sharpness, float* out, int device, void* stream) {
    const int64_t voxels = static_cast<int64_t>(depth) * height * width;
    if (batch == 0 || voxels == 0) return 0;
    const MotionInputs in{volume, source, driving, x, y, z, keypoints, channels, depth, height, width, sharpness};
    return launch(device, stream, dim3(blocks_for(voxels), keypoints + 1, batch), dim3(kThreads), dense_motion, in, out);
}
