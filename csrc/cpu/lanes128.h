// What the bicubic sampler needs of 128-bit vectors, for x86-64 (SSE2, which every one has), ARM (NEON) and WebAssembly.
// The three give the same bits. DITTO_HAS_LANES128 says whether there is one here.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__) || defined(_M_X64)
#define DITTO_HAS_LANES128 1
#include <emmintrin.h>
#elif defined(__aarch64__) || defined(_M_ARM64)
#define DITTO_HAS_LANES128 1
#include <arm_neon.h>
#elif defined(__wasm_simd128__)
#define DITTO_HAS_LANES128 1
#include <wasm_simd128.h>
#else
#define DITTO_HAS_LANES128 0
#endif

#if DITTO_HAS_LANES128
namespace ditto::lanes128 {

// `weigh_columns` takes four rows of four RGBA pixels from `p` on and their weights `v` in 1/16384, and gives the weighted
// sum of each column, four channels, in out[0 .. 3]. `pack` rounds four channels to bytes, held to 0 .. 255. `to_steps`
// rounds four floats times `scale` to whole numbers.

#if defined(__SSE2__) || defined(_M_X64)

using F4 = __m128;
inline F4 load(const float* p) { return _mm_loadu_ps(p); }
inline F4 splat(float x) { return _mm_set1_ps(x); }
inline F4 add(F4 a, F4 b) { return _mm_add_ps(a, b); }
inline F4 mul(F4 a, F4 b) { return _mm_mul_ps(a, b); }

inline void to_steps(const float* p, float scale, int* out) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_cvtps_epi32(mul(load(p), splat(scale))));
}

inline void weigh_columns(const uint8_t* p, size_t stride, const int16_t* v, F4* out) {
    const __m128i zero = _mm_setzero_si128();
    const auto row = [p, stride](int j) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + j * stride)); };
    const __m128i r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3);
    int32_t upper, lower;
    std::memcpy(&upper, v, 4);
    std::memcpy(&lower, v + 2, 4);
    const __m128i wu = _mm_set1_epi32(upper), wl = _mm_set1_epi32(lower);
    const auto column = [wu, wl](__m128i a, __m128i b) {
        return _mm_cvtepi32_ps(_mm_add_epi32(_mm_madd_epi16(a, wu), _mm_madd_epi16(b, wl)));
    };
    const __m128i left_u = _mm_unpacklo_epi8(r0, r1), left_l = _mm_unpacklo_epi8(r2, r3);
    const __m128i right_u = _mm_unpackhi_epi8(r0, r1), right_l = _mm_unpackhi_epi8(r2, r3);
    out[0] = column(_mm_unpacklo_epi8(left_u, zero), _mm_unpacklo_epi8(left_l, zero));
    out[1] = column(_mm_unpackhi_epi8(left_u, zero), _mm_unpackhi_epi8(left_l, zero));
    out[2] = column(_mm_unpacklo_epi8(right_u, zero), _mm_unpacklo_epi8(right_l, zero));
    out[3] = column(_mm_unpackhi_epi8(right_u, zero), _mm_unpackhi_epi8(right_l, zero));
}

inline void pack(F4 sum, uint8_t* out) {
    const __m128i rounded = _mm_cvtps_epi32(sum), words = _mm_packs_epi32(rounded, rounded);
    const int pixel = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
    std::memcpy(out, &pixel, 4);
}

#elif defined(__aarch64__) || defined(_M_ARM64)

using F4 = float32x4_t;
inline F4 load(const float* p) { return vld1q_f32(p); }
inline F4 splat(float x) { return vdupq_n_f32(x); }
inline F4 add(F4 a, F4 b) { return vaddq_f32(a, b); }
inline F4 mul(F4 a, F4 b) { return vmulq_f32(a, b); }

inline void to_steps(const float* p, float scale, int* out) { vst1q_s32(out, vcvtnq_s32_f32(mul(load(p), splat(scale)))); }

inline void weigh_columns(const uint8_t* p, size_t stride, const int16_t* v, F4* out) {
    int32x4_t sum[4];
    for (int j = 0; j < 4; ++j) {
        const uint8x16_t row = vld1q_u8(p + j * stride);
        const int16x8_t left = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(row)));
        const int16x8_t right = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(row)));
        const int16x4_t columns[4] = {vget_low_s16(left), vget_high_s16(left), vget_low_s16(right), vget_high_s16(right)};
        for (int i = 0; i < 4; ++i) sum[i] = j ? vmlal_n_s16(sum[i], columns[i], v[j]) : vmull_n_s16(columns[i], v[j]);
    }
    for (int i = 0; i < 4; ++i) out[i] = vcvtq_f32_s32(sum[i]);
}

inline void pack(F4 sum, uint8_t* out) {
    const int16x4_t words = vqmovn_s32(vcvtnq_s32_f32(sum));
    const uint32_t pixel = vget_lane_u32(vreinterpret_u32_u8(vqmovun_s16(vcombine_s16(words, words))), 0);
    std::memcpy(out, &pixel, 4);
}

#else

using F4 = v128_t;
inline F4 load(const float* p) { return wasm_v128_load(p); }
inline F4 splat(float x) { return wasm_f32x4_splat(x); }
inline F4 add(F4 a, F4 b) { return wasm_f32x4_add(a, b); }
inline F4 mul(F4 a, F4 b) { return wasm_f32x4_mul(a, b); }
inline v128_t rounded(F4 x) { return wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(x)); }

inline void to_steps(const float* p, float scale, int* out) { wasm_v128_store(out, rounded(mul(load(p), splat(scale)))); }

inline void weigh_columns(const uint8_t* p, size_t stride, const int16_t* v, F4* out) {
    const v128_t r0 = wasm_v128_load(p), r1 = wasm_v128_load(p + stride), r2 = wasm_v128_load(p + 2 * stride),
                 r3 = wasm_v128_load(p + 3 * stride);
    const v128_t wu = wasm_v128_load32_splat(v), wl = wasm_v128_load32_splat(v + 2);
    const v128_t left_u = wasm_i8x16_shuffle(r0, r1, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const v128_t right_u = wasm_i8x16_shuffle(r0, r1, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    const v128_t left_l = wasm_i8x16_shuffle(r2, r3, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const v128_t right_l = wasm_i8x16_shuffle(r2, r3, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    const auto column = [wu, wl](v128_t a, v128_t b) {
        return wasm_f32x4_convert_i32x4(wasm_i32x4_add(wasm_i32x4_dot_i16x8(a, wu), wasm_i32x4_dot_i16x8(b, wl)));
    };
    out[0] = column(wasm_u16x8_extend_low_u8x16(left_u), wasm_u16x8_extend_low_u8x16(left_l));
    out[1] = column(wasm_u16x8_extend_high_u8x16(left_u), wasm_u16x8_extend_high_u8x16(left_l));
    out[2] = column(wasm_u16x8_extend_low_u8x16(right_u), wasm_u16x8_extend_low_u8x16(right_l));
    out[3] = column(wasm_u16x8_extend_high_u8x16(right_u), wasm_u16x8_extend_high_u8x16(right_l));
}

inline void pack(F4 sum, uint8_t* out) {
    const v128_t whole = rounded(sum), words = wasm_i16x8_narrow_i32x4(whole, whole);
    wasm_v128_store32_lane(out, wasm_u8x16_narrow_i16x8(words, words), 0);
}

#endif

}  // namespace ditto::lanes128
#endif
