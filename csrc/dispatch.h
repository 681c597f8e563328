// Run-time CPU dispatch.
//
// A function marked DITTO_MULTIVERSION is compiled for AVX-512, AVX2 and the baseline, and the loader picks. It needs
// GCC and glibc (ifunc); GCC below 12 does not know the micro-architecture levels, so it gets AVX2 alone. Elsewhere
// (Clang, musl, macOS, MSVC, other processors) there is the one plain version.
//
// Hand-written AVX2 and AVX-512 (DITTO_AVX2 or DITTO_AVX512 before the function, has_avx2() or has_avx512() at the call)
// work with GCC and Clang alike; every such function has a plain one beside it.
#pragma once
#if defined(__linux__)
#include <features.h>
#endif

// AddressSanitizer is not ready yet when the loader asks which version to take.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#if __GNUC__ >= 12
#define DITTO_MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DITTO_MULTIVERSION __attribute__((target_clones("avx2", "default")))
#endif
#else
#define DITTO_MULTIVERSION
#endif

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define DITTO_HAS_AVX2 1
#define DITTO_AVX2 __attribute__((target("avx2,fma")))
inline bool has_avx2() {
    static const bool yes = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return yes;
}
#define DITTO_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
inline bool has_avx512() {
    static const bool yes = has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return yes;
}
#else
#define DITTO_HAS_AVX2 0
#endif

// A part of a function above, compiled for its processor: a call of it would get the baseline.
#if defined(__GNUC__)
#define DITTO_PART inline __attribute__((always_inline))
#else
#define DITTO_PART inline
#endif
