// The kernels as C functions over raw pointers; ditto/ops/neural.py checks the arguments and calls them. Arrays are in C
// order. Nothing allocates or waits, so CUDA graphs may capture the calls. csrc/cuda/emulated runs them on a CPU, for tests.
#pragma once
#include <cstdint>

extern "C" {

// Each returns 0, or the number of a CUDA error. `device` is the GPU's number, `stream` a cudaStream_t of it.

// image (3, side, side), indices and weights (4, count), rest (3, count) -> out (count, 3).
int ditto_blend_crop(const float* image, int side, const int* indices, const float* weights, const float* rest, int count,
                     uint8_t* out, int device, void* stream);

// x, gamma, beta, out (batch, channels, pixels), or with channels_last (batch, pixels, channels), all of one type: 0 float,
// 1 half, 2 bfloat16. scratch: (258, batch, channels), with channels_last alone.
int ditto_spade(const void* x, const void* gamma, const void* beta, int batch, int channels, int pixels, int channels_last,
                float epsilon, float slope, int type, void* out, float* scratch, int device, void* stream);

// volume (batch, channels, depth, height, width), source and driving (batch, keypoints, 3), x (width), y (height),
// z (depth) -> out (batch, keypoints + 1, 1 + channels, depth, height, width).
int ditto_dense_motion(const float* volume, const float* source, const float* driving, const float* x, const float* y,
                       const float* z, int batch, int keypoints, int channels, int depth, int height, int width,
                       float sharpness, float* out, int device, void* stream);
}
