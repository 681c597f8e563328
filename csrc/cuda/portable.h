// Kernel bodies are plain functions, which the tests run on a CPU too (csrc/cuda/emulated). nvcc gets -fmad=false, so that
// both give the same bits wherever a body calls no expf.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define DITTO_BOTH __host__ __device__ inline
#else
#define DITTO_BOTH inline
#endif
