// Kernel bodies are plain functions that nvcc compiles for the GPU and any compiler for the CPU, where tests run them in a
// loop (host.cpp). nvcc gets -fmad=false, so that both give the same bits wherever a body calls no expf.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define DITTO_BOTH __host__ __device__ inline
#else
#define DITTO_BOTH inline
#endif
