#pragma once
#include <cstdint>
#include <cstring>

// Rounded to the nearest, ties to even, as the GPU does; NaN stays NaN.
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    explicit __nv_bfloat16(float value) {
        uint32_t all;
        std::memcpy(&all, &value, sizeof all);
        bits = static_cast<uint16_t>(value != value ? 0x7fff : (all + 0x7fff + (all >> 16 & 1)) >> 16);
    }
    explicit operator float() const {
        const uint32_t all = static_cast<uint32_t>(bits) << 16;
        float value;
        std::memcpy(&value, &all, sizeof value);
        return value;
    }
};
