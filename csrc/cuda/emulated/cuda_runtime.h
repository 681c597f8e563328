// What kernels.cu needs of CUDA, on a CPU, so that tests run the kernels themselves without a GPU. The threads of a block
// are fibers that take turns at __syncthreads, forwards or backwards: a missing barrier gives other bits. Linux only.
#pragma once
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9;
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes;
    cudaStream_t stream;
};
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }

inline dim3 threadIdx, blockIdx;

namespace emulated {

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(64 << 10);
    bool done;
};

inline std::mutex one_at_a_time;
inline std::vector<Fiber> fibers(1024);
inline ucontext_t scheduler;
inline Fiber* running;
inline std::function<void()> body;
inline bool backwards = false;

inline void enter() {
    body();
    running->done = true;
}

inline void run_block(dim3 block) {
    const unsigned count = block.x * block.y * block.z;
    for (unsigned i = 0; i < count; ++i) {
        Fiber& fiber = fibers[i];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &scheduler;
        fiber.done = false;
        makecontext(&fiber.context, enter, 0);
    }
    for (bool more = true; more;) {
        more = false;
        for (unsigned i = 0; i < count; ++i) {
            const unsigned which = backwards ? count - 1 - i : i;
            running = &fibers[which];
            if (running->done) continue;
            threadIdx = dim3(which % block.x, which / block.x % block.y, which / (block.x * block.y));
            swapcontext(&scheduler, &running->context);
            more = more || !running->done;
        }
    }
}

}  // namespace emulated

inline void __syncthreads() { swapcontext(&emulated::running->context, &emulated::scheduler); }

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* how, void (*kernel)(Parameters...), Arguments&&... arguments) {
    const dim3 grid = how->gridDim, block = how->blockDim;
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    if (!grid.x || !grid.y || !grid.z || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535 || !threads || threads > 1024)
        return cudaErrorInvalidConfiguration;
    const std::lock_guard<std::mutex> lock(emulated::one_at_a_time);
    emulated::body = [&] { kernel(static_cast<Parameters>(arguments)...); };
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = dim3(x, y, z);
                emulated::run_block(block);
            }
    return cudaSuccess;
}

extern "C" void ditto_emulate_backwards(int backwards) { emulated::backwards = backwards != 0; }
