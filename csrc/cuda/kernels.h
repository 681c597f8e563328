// The kernels as C functions over raw pointers: kernels.cu launches them on a stream, host.cpp runs the same bodies in a
// loop for the tests. ditto/ops/neural.py checks the arguments and calls them. Arrays are in C order.
#pragma once
#include <cstdint>

extern "C" {

// Each returns 0, or the number of a CUDA error. `stream` is a cudaStream_t.

// image (3, side, side), indices and weights (4, count), rest (3, count) -> out (count, 3).
int ditto_blend_crop(const float* image, int side, const int* indices, const float* weights, const float* rest, int count,
                     uint8_t* out, void* stream);

// x, gamma, beta, out (planes, pixels), all of one type: 0 float, 1 half, 2 bfloat16 (GPU only).
int ditto_spade(const void* x, const void* gamma, const void* beta, int planes, int pixels, float epsilon, float slope,
                int type, void* out, void* stream);

// volume (batch, channels, depth, height, width), source and driving (batch, keypoints, 3), x (width), y (height),
// z (depth) -> out (batch, keypoints + 1, 1 + channels, depth, height, width).
int ditto_dense_motion(const float* volume, const float* source, const float* driving, const float* x, const float* y,
                       const float* z, int batch, int keypoints, int channels, int depth, int height, int width,
                       float sharpness, float* out, void* stream);
}
