#include "core/blob.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace ditto {

namespace {

constexpr char kMagic[9] = "DITTOLIT";
constexpr size_t kHeader = 32, kEntry = 48, kName = 24, kMostArrays = 1024;
constexpr uint32_t kMostOfSize = 1u << 20;
constexpr const char* kTypes[] = {"uint8", "int16", "int32", "float32", "float64"};
constexpr size_t kTypeBytes[] = {1, 2, 4, 4, 8};

template <class T>
T read(const uint8_t* at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

std::string shape_text(const int* size) {
    std::string text = "(";
    for (int i = 0; i < 3; ++i) text += (i ? ", " : "") + (size[i] == kAny ? std::string("any") : std::to_string(size[i]));
    return text + ")";
}

template <class T>
bool all_usable(const Array<T>& array) {
    const size_t count = static_cast<size_t>(array.size[0]) * array.size[1] * array.size[2];
    const T limit = static_cast<T>(kLargest);
    bool usable = true;
    for (size_t i = 0; i < count; ++i) usable &= std::fabs(array.data[i]) <= limit;  // false for NaN
    return usable;
}

}  // namespace

std::vector<uint8_t> write_blob(const std::vector<Made>& arrays) {
    size_t end = kHeader + kEntry * arrays.size();
    std::vector<uint64_t> offsets;
    for (const Made& made : arrays) {
        end = (end + 15) / 16 * 16;
        offsets.push_back(end);
        end += made.bytes.size();
    }
    std::vector<uint8_t> blob(end, 0);
    const auto write = [&blob](size_t at, const auto& value) { std::memcpy(blob.data() + at, &value, sizeof value); };
    std::memcpy(blob.data(), kMagic, 8);
    write(8, kBlobVersion);
    write(12, static_cast<uint32_t>(arrays.size()));
    write(16, static_cast<uint64_t>(end));
    for (size_t i = 0; i < arrays.size(); ++i) {
        const Made& made = arrays[i];
        const size_t at = kHeader + kEntry * i;
        std::memcpy(blob.data() + at, made.name.data(), std::min(made.name.size(), kName - 1));
        write(at + 24, static_cast<uint32_t>(made.type));
        write(at + 28, made.size);
        write(at + 40, offsets[i]);
        std::copy(made.bytes.begin(), made.bytes.end(), blob.begin() + static_cast<std::ptrdiff_t>(offsets[i]));
    }
    return blob;
}

Blob::Blob(const void* bytes, size_t size) {
    if (size < kHeader || std::memcmp(bytes, kMagic, 8) != 0) {
        fail("expected a blob that begins with DITTOLIT, got other bytes; make it with ditto.lite.rendering.blob");
        return;
    }
    storage_.resize((size + 15) / 16);
    std::memcpy(storage_.data(), bytes, size);
    if (!read_directory(size)) entries_.clear();
}

bool Blob::read_directory(size_t size) {
    const uint8_t* begin = storage_.front().bytes;
    const uint32_t version = read<uint32_t>(begin + 8), count = read<uint32_t>(begin + 12);
    if (version != kBlobVersion) {
        fail("expected a blob of version " + std::to_string(kBlobVersion) + ", got version " + std::to_string(version) +
             "; make it again with this ditto");
        return false;
    }
    const uint64_t stated = read<uint64_t>(begin + 16);
    if (stated != size) {
        fail("expected a blob of " + std::to_string(stated) + " bytes, as it says, got " + std::to_string(size) +
             "; it was cut off or damaged on the way");
        return false;
    }
    if (count > kMostArrays || kHeader + count * kEntry > size) {
        fail("expected a directory inside the blob, got " + std::to_string(count) + " arrays; it is damaged");
        return false;
    }
    entries_.reserve(count);
    for (uint32_t i = 0; i < count; ++i) {
        const uint8_t* at = begin + kHeader + i * kEntry;
        Entry entry{};
        std::memcpy(entry.name, at, 24);
        const uint32_t type = read<uint32_t>(at + 24);
        const uint64_t offset = read<uint64_t>(at + 40);
        uint64_t bytes = type < 5 ? kTypeBytes[type] : 0;
        for (int axis = 0; axis < 3; ++axis) {
            entry.size[axis] = read<uint32_t>(at + 28 + 4 * axis);
            if (entry.size[axis] > kMostOfSize) bytes = 0;
            bytes = bytes > size ? bytes : bytes * entry.size[axis];  // at most size * 2^20: no overflow
        }
        const bool empty = entry.size[0] == 0 || entry.size[1] == 0 || entry.size[2] == 0;
        if ((bytes == 0 && !empty) || type >= 5 || offset % 16 != 0 || offset > size || bytes > size - offset) {
            fail("expected an array of a known type, inside the blob and at a multiple of 16 bytes, got array " +
                 std::to_string(i) + " otherwise; the blob is damaged");
            return false;
        }
        entry.type = static_cast<Type>(type);
        entry.at = begin + offset;
        if (find(entry.name)) {
            fail("expected each array once, got array " + std::to_string(i) + " again; the blob is damaged");
            return false;
        }
        entries_.push_back(entry);
    }
    return true;
}

const Blob::Entry* Blob::find(const char* name) const {
    for (const Entry& entry : entries_)
        if (std::strcmp(entry.name, name) == 0) return &entry;
    return nullptr;
}

void Blob::fail(const std::string& message) {
    if (error_.empty()) error_ = message;
}

template <class T>
Array<T> Blob::take(const char* name, Type type, int a, int b, int c) {
    Array<T> array;
    if (failed()) return array;
    const Entry* entry = find(name);
    const int expected[3] = {a, b, c};
    const std::string wanted = std::string(kTypes[static_cast<int>(type)]) + " " + shape_text(expected);
    if (!entry) {
        fail("expected an array " + std::string(name) + " of " + wanted + ", got none; make the blob again with this ditto");
        return array;
    }
    int size[3];
    bool fits = entry->type == type;
    for (int i = 0; i < 3; ++i) {
        size[i] = static_cast<int>(entry->size[i]);
        fits &= expected[i] == kAny || size[i] == expected[i];
    }
    if (!fits) {
        fail("expected the array " + std::string(name) + " to be " + wanted + ", got " +
             kTypes[static_cast<int>(entry->type)] + " " + shape_text(size) + "; make the blob again with this ditto");
        return array;
    }
    array.data = reinterpret_cast<const T*>(entry->at);
    std::memcpy(array.size, size, sizeof size);
    return array;
}

template Array<uint8_t> Blob::take(const char*, Type, int, int, int);
template Array<int16_t> Blob::take(const char*, Type, int, int, int);

Array<int32_t> Blob::i32(const char* name, int low, int high, int a, int b, int c) {
    const Array<int32_t> array = take<int32_t>(name, Type::kI32, a, b, c);
    const size_t count = static_cast<size_t>(array.size[0]) * array.size[1] * array.size[2];
    for (size_t i = 0; i < count; ++i)
        if (array.data[i] < low || array.data[i] > high) {
            fail("expected numbers from " + std::to_string(low) + " to " + std::to_string(high) + " in the array " + name +
                 ", got " + std::to_string(array.data[i]) + "; the blob is damaged");
            return {};
        }
    return array;
}

Array<float> Blob::f32(const char* name, int a, int b, int c) {
    const Array<float> array = take<float>(name, Type::kF32, a, b, c);
    if (!failed() && !all_usable(array)) fail("expected finite numbers up to 1e7 in the array " + std::string(name) + ", got others; the blob is damaged");
    return failed() ? Array<float>{} : array;
}

Array<double> Blob::f64(const char* name, int a, int b, int c) {
    const Array<double> array = take<double>(name, Type::kF64, a, b, c);
    if (!failed() && !all_usable(array)) fail("expected finite numbers up to 1e7 in the array " + std::string(name) + ", got others; the blob is damaged");
    return failed() ? Array<double>{} : array;
}

double Blob::number(const char* name, double low, double high) {
    const Array<double> array = f64(name, 1);
    if (failed()) return low;
    if (!(array.data[0] >= low && array.data[0] <= high))
        fail("expected " + std::string(name) + " from " + std::to_string(low) + " to " + std::to_string(high) + ", got " +
             std::to_string(array.data[0]) + "; the blob is damaged");
    return array.data[0];
}

int Blob::whole(const char* name, int low, int high) {
    const Array<int32_t> array = i32(name, low, high, 1);
    return failed() ? low : array.data[0];
}

}  // namespace ditto
