// Four or sixteen floats that are computed with at once: vector types where the compiler has them, which it lays out for any
// processor; loops elsewhere.
#pragma once
#include <cstdint>
#include <cstring>

#include "dispatch.h"

namespace ditto {

#if defined(__GNUC__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // how they would be passed to a function: all of those here are inlined
#endif
typedef float Four __attribute__((vector_size(16)));
typedef float Sixteen __attribute__((vector_size(64)));
#else
template <int N>
struct Pack {
    float v[N];
};
template <int N>
inline Pack<N> operator*(float a, Pack<N> b) {
    for (float& x : b.v) x *= a;
    return b;
}
template <int N>
inline Pack<N> operator+(Pack<N> a, const Pack<N>& b) {
    for (int i = 0; i < N; ++i) a.v[i] += b.v[i];
    return a;
}
using Four = Pack<4>;
using Sixteen = Pack<16>;
#endif

template <class Floats>
DITTO_PART Floats load(const float* from) {
    Floats value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class Floats>
DITTO_PART void store(float* to, const Floats& value) {
    std::memcpy(to, &value, sizeof value);
}

DITTO_PART Four load_bytes(const uint8_t* from) {
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 9)
    typedef uint8_t Bytes __attribute__((vector_size(4)));
    Bytes bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(bytes, Four);
#else
    const float values[4] = {float(from[0]), float(from[1]), float(from[2]), float(from[3])};
    return load<Four>(values);
#endif
}

// Each of 16 values three times: as many channels of 16 pixels.
DITTO_PART void store_thrice(float* to, const Sixteen& v) {
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
    store<Sixteen>(to, __builtin_shufflevector(v, v, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5));
    store<Sixteen>(to + 16, __builtin_shufflevector(v, v, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10));
    store<Sixteen>(to + 32, __builtin_shufflevector(v, v, 10, 11, 11, 11, 12, 12, 12, 13, 13, 13, 14, 14, 14, 15, 15, 15));
#else
    float values[16];
    store(values, v);
    for (int i = 0; i < 48; ++i) to[i] = values[i / 3];
#endif
}

}  // namespace ditto
