// From what a packed portrait holds to a blob. docs/packed.md describes the format; ditto/lite/rendering/packed.py writes it.
//
// Numbers come as a stream of records, little endian, without padding:
//
//   header   magic "DITTONUM" (8), version u32, number of records u32
//   record   name (24, padded with zeros), type u8, stored type u8, coding u8, 0 u8, three sizes u32 (1 for those that the array
//            lacks); where whole numbers stand for others and there are any, a step f64 for each plane; the values
//
// Each record is an array of the blob, but for a few from which arrays of the blob are worked out. Nothing in it is trusted:
// the reader checks records and sizes, and `Portrait::open` checks the arrays.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/core.h"

namespace ditto {

constexpr uint32_t kPackedVersion = 1;
constexpr size_t kMostNumbers = size_t{32} << 20;  // bytes of a stream of numbers
constexpr size_t kMostDecoded = size_t{64} << 20;  // bytes of all arrays that one stream is decoded to

// The blob of a packed portrait; empty if something is wrong: `error` says what.
std::vector<uint8_t> unpack_blob(const void* model, size_t model_bytes, const void* numbers, size_t numbers_bytes,
                                 const Picture& picture, const Picture& crop, const Picture& plate, std::string* error);

}  // namespace ditto
