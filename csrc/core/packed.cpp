#include "core/packed.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>

#include "core/portrait.h"

namespace ditto {

namespace {

constexpr char kMagic[9] = "DITTONUM";
constexpr size_t kName = 24, kMostRecords = 1024;
constexpr uint32_t kMostOfSize = 1u << 20;
constexpr int kMostSide = 32768;

enum class Stored : uint8_t { kU8, kI16, kI32, kF32, kF64, kF16 };  // as `Type`, and half floats
constexpr size_t kStoredBytes[] = {1, 2, 4, 4, 8, 2};

enum class Coding : uint8_t {
    kPlain,    // as they are
    kSplit,    // first the low bytes of all numbers, then their next bytes; in every further order so for each plane
    kRising,   // (a, b, c) as b c planes of a numbers, each number as its difference from the one before
    kPicture,  // (a, b, c) as c planes of a rows of b numbers, each number as its difference from a prediction
    kColours,  // the same; of every four planes, the first and the third as their difference from the second
};
constexpr uint8_t kCodings = 5;

bool is_float(Stored s) { return s >= Stored::kF32; }

Made make(const std::string& name, Type type, size_t a, size_t b = 1, size_t c = 1) {
    Made made{name, type, {static_cast<uint32_t>(a), static_cast<uint32_t>(b), static_cast<uint32_t>(c)}, {}};
    made.bytes.resize(made.count() * kStoredBytes[static_cast<int>(type)]);
    return made;
}

double half_float(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double size = exponent == 0    ? std::ldexp(fraction, -24)
                        : exponent == 31 ? (fraction ? NAN : HUGE_VAL)
                                         : std::ldexp(1024 + fraction, exponent - 25);
    return bits >> 15 ? -size : size;
}

// Bytes taken one after the other; nothing more once too few were left.
class Reader {
public:
    Reader(const void* bytes, size_t size) : at_(static_cast<const uint8_t*>(bytes)), left_(size) {}

    const uint8_t* bytes(size_t count) {
        if (count > left_) {
            short_ = true;
            left_ = 0;
            return nullptr;
        }
        const uint8_t* here = at_;
        at_ += count;
        left_ -= count;
        return here;
    }

    uint32_t u32() {
        uint32_t value = 0;
        if (const uint8_t* here = bytes(sizeof value)) std::memcpy(&value, here, sizeof value);
        return value;
    }

    bool ran_short() const { return short_; }
    size_t left() const { return left_; }

private:
    const uint8_t* at_;
    size_t left_;
    bool short_ = false;
};

// What the value beside, above and the one between say about a value: Weinberger et al. 2000 (LOCO-I, JPEG-LS), section III.
int64_t predicted(int64_t beside, int64_t above, int64_t between) {
    if (between >= std::max(beside, above)) return std::min(beside, above);
    if (between <= std::min(beside, above)) return std::max(beside, above);
    return beside + above - between;
}

// Planes of `rows` by `columns` values of W bytes each: in a plane first the lowest bytes of all values, then the next.
template <int W>
void join_planes(const uint8_t* from, size_t planes, size_t pixels, uint8_t* to) {
    for (size_t p = 0; p < planes; ++p, from += W * pixels)
        for (size_t i = 0; i < pixels; ++i)
            for (int k = 0; k < W; ++k) to[W * (i * planes + p) + k] = from[k * pixels + i];
}

template <class T>
void undo_prediction(uint8_t* bytes, size_t planes, size_t rows, size_t columns) {
    T* values = reinterpret_cast<T*>(bytes);
    const auto at = [&](size_t y, size_t x, size_t p) -> T& { return values[(y * columns + x) * planes + p]; };
    for (size_t y = 0; y < rows; ++y)
        for (size_t x = 0; x < columns; ++x)
            for (size_t p = 0; p < planes; ++p) {
                int64_t base = 0;
                if (x && y) base = predicted(at(y, x - 1, p), at(y - 1, x, p), at(y - 1, x - 1, p));
                else if (x) base = at(y, x - 1, p);
                else if (y) base = at(y - 1, x, p);
                at(y, x, p) = static_cast<T>(static_cast<uint64_t>(base) + static_cast<uint64_t>(at(y, x, p)));
            }
}

void undo_differences(uint8_t* values, size_t planes, size_t pixels) {
    for (size_t i = 0; i < pixels; ++i, values += planes)
        for (size_t p = 0; p + 2 < planes; p += 4)
            for (const size_t other : {p, p + 2}) values[other] = static_cast<uint8_t>(values[other] + values[p + 1] - 128);
}

class Stream {
public:
    Stream(const char* noun, const void* bytes, size_t size, std::vector<Made>& arrays, std::string& error)
        : noun_(noun), reader_(bytes, size), arrays_(arrays), error_(error) {
        read(size);
    }

private:
    void fail(const std::string& message) {
        if (error_.empty()) error_ = "expected " + message + " in the " + noun_ + ", got others; fetch or make it again";
    }

    void read(size_t size) {
        const uint8_t* magic = reader_.bytes(8);
        if (size > kMostNumbers || !magic || std::memcmp(magic, kMagic, 8) != 0) {
            error_ = std::string("expected numbers that begin with DITTONUM, of up to 32 MiB, as the ") + noun_ + ", got other bytes; inflate them first";
            return;
        }
        const uint32_t version = reader_.u32(), count = reader_.u32();
        if (version != kPackedVersion) {
            error_ = std::string("expected the ") + noun_ + " in version " + std::to_string(kPackedVersion) + ", got version " +
                     std::to_string(version) + "; make it again with this ditto";
            return;
        }
        if (count > kMostRecords) fail("up to 1024 arrays");
        for (uint32_t i = 0; i < count && error_.empty(); ++i) record();
        if (error_.empty() && reader_.left()) fail("nothing behind the last array");
    }

    void record() {
        const uint8_t *name = reader_.bytes(kName), *kinds = reader_.bytes(4);
        const uint32_t a = reader_.u32(), b = reader_.u32(), c = reader_.u32();
        if (reader_.ran_short()) return fail("whole arrays");
        const bool known = kinds[0] <= static_cast<uint8_t>(Type::kF64) && kinds[1] <= static_cast<uint8_t>(Stored::kF16) &&
                           kinds[2] < kCodings && kinds[3] == 0 && name[kName - 1] == 0;
        if (!known || a > kMostOfSize || b > kMostOfSize || c > kMostOfSize) return fail("arrays of known types, codings and sizes");
        const Type type = static_cast<Type>(kinds[0]);
        const Stored stored = static_cast<Stored>(kinds[1]), target = static_cast<Stored>(kinds[0]);
        const Coding coding = static_cast<Coding>(kinds[2]);
        const size_t width = kStoredBytes[kinds[1]], wide = kStoredBytes[kinds[0]];
        const size_t most = reader_.left() / width;  // values that the stream still has
        if (a && b && c && (a > most || b > most / a || c > most / a / b)) return fail("whole arrays");
        const size_t count = static_cast<size_t>(a) * b * c;
        const bool predicts = coding >= Coding::kRising, as_picture = coding >= Coding::kPicture;
        if ((predicts && is_float(stored)) || (coding == Coding::kColours && stored != Stored::kU8) ||
            (is_float(stored) ? !is_float(target) || width > wide : !is_float(target) && width > wide))
            return fail("arrays of known types, codings and sizes");
        if (count > (kMostDecoded - decoded_) / wide) return fail("arrays of up to 64 MiB");
        decoded_ += count * wide;

        const size_t planes = as_picture ? c : predicts ? static_cast<size_t>(b) * c : 1;
        const bool scaled = !is_float(stored) && is_float(target);
        std::vector<double> steps(scaled ? (count ? planes : 0) : 0);
        const uint8_t* from_steps = reader_.bytes(8 * steps.size());
        const uint8_t* from = reader_.bytes(count * width);
        if (reader_.ran_short()) return fail("whole arrays");
        if (!steps.empty()) std::memcpy(steps.data(), from_steps, 8 * steps.size());

        std::vector<uint8_t> values(from, from + count * width);
        if (coding != Coding::kPlain && count) {
            const size_t pixels = count / planes;
            const auto join = width == 1 ? join_planes<1> : width == 2 ? join_planes<2> : width == 4 ? join_planes<4> : join_planes<8>;
            join(from, planes, pixels, values.data());
            const size_t rows = as_picture ? a : 1;
            const auto undo = width == 1 ? undo_prediction<uint8_t> : width == 2 ? undo_prediction<int16_t> : undo_prediction<int32_t>;
            if (predicts) undo(values.data(), planes, rows, pixels / rows);
            if (coding == Coding::kColours) undo_differences(values.data(), planes, pixels);
        }
        Made made = make(reinterpret_cast<const char*>(name), type, a, b, c);
        if (stored == target) {
            made.bytes = std::move(values);
        } else {
            for (size_t i = 0; i < count; ++i) {
                const double value = number(stored, values.data() + i * width) * (scaled ? steps[i % planes] : 1.0);
                uint8_t* to = made.bytes.data() + i * wide;
                if (type == Type::kF64) write(value, to);
                else if (type == Type::kF32) write(std::fabs(value) <= kLargest ? static_cast<float>(value) : NAN, to);
                else if (type == Type::kI32) write(static_cast<int32_t>(value), to);
                else write(static_cast<int16_t>(value), to);
            }
        }
        arrays_.push_back(std::move(made));
    }

    static double number(Stored stored, const uint8_t* at) {
        switch (stored) {
            case Stored::kU8: return *at;
            case Stored::kI16: return read_as<int16_t>(at);
            case Stored::kI32: return read_as<int32_t>(at);
            case Stored::kF32: return read_as<float>(at);
            case Stored::kF64: return read_as<double>(at);
            default: return half_float(read_as<uint16_t>(at));
        }
    }

    template <class T>
    static T read_as(const uint8_t* at) {
        T value;
        std::memcpy(&value, at, sizeof value);
        return value;
    }

    template <class T>
    static void write(T value, uint8_t* to) { std::memcpy(to, &value, sizeof value); }

    const char* noun_;
    Reader reader_;
    std::vector<Made>& arrays_;
    std::string& error_;
    size_t decoded_ = 0;
};

// The arrays that follow from others.
class Rest {
public:
    Rest(std::vector<Made>& arrays, std::string& error) : arrays_(arrays), error_(error) {}

    void add(const Picture& picture, const Picture& crop, const Picture& plate) {
        const Made* alpha = take("alpha", Type::kU8, kAny, kAny);
        if (!alpha || alpha->size[0] != alpha->size[1]) return fail("a square array alpha");
        side_ = static_cast<int>(alpha->size[0]);
        check("crop", crop, side_, side_);
        check("plate", plate, side_, side_);
        const bool whole = picture.rgb != nullptr;
        if (whole) check("picture", picture, kAny, kAny);
        if (!error_.empty()) return;
        add_places();
        if (!error_.empty()) return;
        std::vector<Made> made;
        made.push_back(texture(crop, *take("alpha", Type::kU8, kAny, kAny)));
        made.push_back(three_channels("plate", plate));
        if (whole) {
            made.push_back(three_channels("picture", picture));
            made.push_back(three_channels("crop", crop));
            const Made* fine = take("paste.fine", Type::kI32, 1);
            if (!fine) return fail("an array paste.fine");
            if (value<int32_t>(*fine)) add_detail(made);
        }
        if (!error_.empty()) return;
        std::move(made.begin(), made.end(), std::back_inserter(arrays_));
        const auto helps = [](const Made& m) { return m.name == "alpha" || m.name == "surround.depth" || m.name == "paste.fine"; };
        arrays_.erase(std::remove_if(arrays_.begin(), arrays_.end(), helps), arrays_.end());
    }

private:
    void fail(const std::string& message) {
        if (error_.empty()) error_ = "expected " + message + " in a packed portrait, got none or another; fetch or make it again";
    }

    const Made* take(const char* name, Type type, int a, int b = 1, int c = 1) {
        const int sizes[3] = {a, b, c};
        for (const Made& made : arrays_) {
            if (made.name != name) continue;
            bool fits = made.type == type;
            for (int i = 0; i < 3; ++i) fits &= sizes[i] == kAny || made.size[i] == static_cast<uint32_t>(sizes[i]);
            return fits ? &made : nullptr;
        }
        return nullptr;
    }

    template <class T>
    static T value(const Made& made, size_t i = 0) {
        T number;
        std::memcpy(&number, made.bytes.data() + i * sizeof number, sizeof number);
        return number;
    }

    void check(const char* name, const Picture& p, int height, int width) {
        const bool sized = p.rgb && p.height > 0 && p.width > 0 && p.height <= kMostSide && p.width <= kMostSide && (p.channels == 3 || p.channels == 4);
        if (error_.empty() && !(sized && (height == kAny || p.height == height) && (width == kAny || p.width == width)))
            error_ = "expected the decoded " + std::string(name) +
                     (height == kAny ? " to have pixels" : " to be " + std::to_string(width) + " x " + std::to_string(height)) +
                     " with 3 or 4 channels, got " + std::to_string(p.width) + " x " + std::to_string(p.height) + " with " +
                     std::to_string(p.channels) + "; it belongs to another portrait";
    }

    // Where the face and what is around it are in the head frame, worked out from where they are in the crop: so a face at
    // rest lies where it lay, however coarse its places are.
    void add_places() {
        const Made *landmarks = take("face.landmarks", Type::kF64, kLandmarks, 3), *scale = take("face.scale_px", Type::kF64, 1);
        const Made *rotation = take("face.rotation", Type::kF64, 3, 3), *translation = take("face.translation_px", Type::kF64, 3);
        const Made* points = take("surround.points", Type::kF64, kAny, 2);
        const Made* depth = points ? take("surround.depth", Type::kF64, static_cast<int>(points->size[0])) : nullptr;
        if (!landmarks || !scale || !rotation || !translation || !depth) return fail("the places of a face");
        const size_t count = points->size[0];
        Made canonical = make("face.canonical", Type::kF64, kLandmarks, 3), around = make("surround.canonical", Type::kF64, count, 3);
        Made source = make("source", Type::kF32, kLandmarks + count, 2);
        double r[9], t[3];
        std::memcpy(r, rotation->bytes.data(), sizeof r);
        std::memcpy(t, translation->bytes.data(), sizeof t);
        const double s = value<double>(*scale);
        const auto place = [&](const double* px, double* out) {  // ((px - t) / s) @ r.T
            double d[3];
            for (int j = 0; j < 3; ++j) d[j] = (px[j] - t[j]) / s;
            for (int j = 0; j < 3; ++j) out[j] = d[0] * r[3 * j] + d[1] * r[3 * j + 1] + d[2] * r[3 * j + 2];
        };
        const auto narrow = [](double x) { return std::fabs(x) <= kLargest ? static_cast<float>(x) : NAN; };
        for (size_t i = 0; i < kLandmarks + count; ++i) {
            double px[3];
            if (i < kLandmarks) {
                for (size_t j = 0; j < 3; ++j) px[j] = value<double>(*landmarks, 3 * i + j);
            } else {
                for (size_t j = 0; j < 2; ++j) px[j] = value<double>(*points, 2 * (i - kLandmarks) + j);
                px[2] = value<double>(*depth, i - kLandmarks);
            }
            place(px, i < kLandmarks ? canonical.as<double>() + 3 * i : around.as<double>() + 3 * (i - kLandmarks));
            for (size_t j = 0; j < 2; ++j) source.as<float>()[2 * i + j] = narrow(px[j]);
        }
        for (Made* made : {&canonical, &around, &source}) arrays_.push_back(std::move(*made));
    }

    static Made three_channels(const char* name, const Picture& from) {
        const size_t pixels = static_cast<size_t>(from.height) * from.width;
        Made made = make(name, Type::kU8, from.height, from.width, 3);
        for (size_t i = 0; i < pixels; ++i) std::copy_n(from.rgb + i * from.channels, 3, made.bytes.data() + 3 * i);
        return made;
    }

    static Made texture(const Picture& crop, const Made& alpha) {
        Made made = make("texture", Type::kU8, crop.height, crop.width, 4);
        for (size_t i = 0; i < alpha.count(); ++i) {
            std::copy_n(crop.rgb + i * crop.channels, 3, made.bytes.data() + 4 * i);
            made.bytes[4 * i + 3] = alpha.bytes[i];
        }
        return made;
    }

    // What the picture has beyond the crop drawn into it: `_fine_detail` in ditto/lite/rendering/paste_back.py.
    void add_detail(std::vector<Made>& made) {
        const Made &picture = made[made.size() - 2], &crop = made.back();
        const auto whole = [this](const char* name, int low, int high) {
            const Made* found = take(name, Type::kI32, 1);
            const int number = found ? value<int32_t>(*found) : low - 1;
            if (number < low || number > high) fail(std::string("a usable ") + name);
            return error_.empty() ? number : low;
        };
        const int height = static_cast<int>(picture.size[0]), width = static_cast<int>(picture.size[1]);
        const int x0 = whole("paste.x", 0, width - 1), y0 = whole("paste.y", 0, height - 1);
        const int columns = whole("paste.columns", 1, width - x0), rows = whole("paste.rows", 1, height - y0);
        const int n = whole("paste.reduce", 1, std::max(side_ / 4, 1));
        const Made* to_crop = take("paste.to_crop", Type::kF64, 2, 3);
        if (!to_crop) fail("an array paste.to_crop");
        if (!error_.empty()) return;
        double a[6];
        std::memcpy(a, to_crop->bytes.data(), sizeof a);

        const int cells = side_ / n;
        std::vector<float> small(3 * static_cast<size_t>(cells) * cells, 0.0f);
        const float share = 1.0f / static_cast<float>(n * n);
        for (int y = 0; y < cells * n; ++y)
            for (int x = 0; x < cells * n; ++x)
                for (int k = 0; k < 3; ++k)
                    small[3 * (static_cast<size_t>(y / n) * cells + x / n) + k] += share * crop.bytes[3 * (static_cast<size_t>(y) * side_ + x) + k];

        Made detail = make("paste.detail", Type::kI16, rows, columns, 3);
        const double edge = side_ - 0.5;
        for (int y = 0; y < rows; ++y)
            for (int x = 0; x < columns; ++x) {
                const double u = a[0] * (x0 + x) + a[1] * (y0 + y) + a[2], v = a[3] * (x0 + x) + a[4] * (y0 + y) + a[5];
                if (!(u >= -0.5 && u <= edge && v >= -0.5 && v <= edge)) continue;
                const double across = (u + 0.5) / n - 0.5, down = (v + 0.5) / n - 0.5;
                const int left = static_cast<int>(std::floor(across)), top = static_cast<int>(std::floor(down));
                float wx[4], wy[4], drawn[3] = {0.0f, 0.0f, 0.0f};
                weights(static_cast<float>(across - left), wx);
                weights(static_cast<float>(down - top), wy);
                for (int j = 0; j < 4; ++j)
                    for (int i = 0; i < 4; ++i) {
                        const size_t row = std::clamp(top + j - 1, 0, cells - 1), column = std::clamp(left + i - 1, 0, cells - 1);
                        for (int k = 0; k < 3; ++k) drawn[k] += wy[j] * wx[i] * small[3 * (row * cells + column) + k];
                    }
                const uint8_t* pixel = picture.bytes.data() + 3 * (static_cast<size_t>(y0 + y) * width + x0 + x);
                for (int k = 0; k < 3; ++k)
                    detail.as<int16_t>()[3 * (static_cast<size_t>(y) * columns + x) + k] = static_cast<int16_t>(std::rint(pixel[k] - drawn[k]));
            }
        made.push_back(std::move(detail));
    }

    static void weights(float t, float* w) {  // Catmull-Rom, as in csrc/cpu/paste_back.cpp
        w[0] = ((-0.5f * t + 1.0f) * t - 0.5f) * t;
        w[1] = (1.5f * t - 2.5f) * t * t + 1.0f;
        w[2] = ((-1.5f * t + 2.0f) * t + 0.5f) * t;
        w[3] = (0.5f * t - 0.5f) * t * t;
    }

    std::vector<Made>& arrays_;
    std::string& error_;
    int side_ = 0;
};

}  // namespace

std::vector<uint8_t> unpack_blob(const void* model, size_t model_bytes, const void* numbers, size_t numbers_bytes,
                                 const Picture& picture, const Picture& crop, const Picture& plate, std::string* error) {
    error->clear();
    std::vector<Made> arrays;
    Stream("model pack", model, model_bytes, arrays, *error);
    if (error->empty()) Stream("numbers of a portrait", numbers, numbers_bytes, arrays, *error);
    if (error->empty()) Rest(arrays, *error).add(picture, crop, plate);
    if (!error->empty()) return {};
    return write_blob(arrays);
}

}  // namespace ditto
