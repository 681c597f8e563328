// The flat blob: named arrays in one piece of memory. docs/blob.md describes it; ditto/lite/rendering/blob.py writes it.
//
//   header     magic "DITTOLIT" (8), version u32, number of arrays u32, size of the whole in bytes u64, 0 u64
//   directory  for each array 48 bytes: name (24, padded with zeros), type u32, three sizes u32 (those an array lacks are
//              1), offset u64
//   arrays     each in C order, at a multiple of 16; little endian
//
// Nothing in a blob is trusted: `Blob` checks the directory, and whoever takes an array says which type and sizes it has.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ditto {

constexpr uint32_t kBlobVersion = 1;
constexpr double kLargest = 1e7;  // of any number in a blob: with larger ones float32 would run out on the way to a pixel

enum class Type : uint32_t { kU8, kI16, kI32, kF32, kF64 };

constexpr int kAny = -1;  // a size that the caller has no opinion on

template <class T>
struct Array {
    const T* data = nullptr;
    int size[3] = {0, 0, 0};
};

// An array of a blob that is to be written.
struct Made {
    std::string name;
    Type type;
    uint32_t size[3];
    std::vector<uint8_t> bytes;

    template <class T>
    T* as() { return reinterpret_cast<T*>(bytes.data()); }
    size_t count() const { return static_cast<size_t>(size[0]) * size[1] * size[2]; }
};

std::vector<uint8_t> write_blob(const std::vector<Made>& arrays);

// The arrays of a blob. The first thing that is wrong stays in `error`; arrays taken after that are empty.
class Blob {
public:
    // Copies the bytes, so that nothing can change them after they were checked.
    Blob(const void* bytes, size_t size);

    Array<uint8_t> u8(const char* name, int a, int b = 1, int c = 1) { return take<uint8_t>(name, Type::kU8, a, b, c); }
    Array<int16_t> i16(const char* name, int a, int b = 1, int c = 1) { return take<int16_t>(name, Type::kI16, a, b, c); }
    // Every number lies in [low, high].
    Array<int32_t> i32(const char* name, int low, int high, int a, int b = 1, int c = 1);
    // Every number is finite and no larger than kLargest.
    Array<float> f32(const char* name, int a, int b = 1, int c = 1);
    Array<double> f64(const char* name, int a, int b = 1, int c = 1);
    double number(const char* name, double low, double high);
    int whole(const char* name, int low, int high);

    bool has(const char* name) const { return find(name) != nullptr; }
    bool failed() const { return !error_.empty(); }
    const std::string& error() const { return error_; }
    void fail(const std::string& message);

private:
    struct Entry {
        char name[25];
        Type type;
        uint32_t size[3];
        const uint8_t* at;
    };

    template <class T>
    Array<T> take(const char* name, Type type, int a, int b, int c);
    const Entry* find(const char* name) const;
    bool read_directory(size_t size);

    struct alignas(16) Line {
        uint8_t bytes[16];
    };
    std::vector<Line> storage_;
    std::vector<Entry> entries_;
    std::string error_;
};

}  // namespace ditto
