// Opens damaged blobs and draws from those that pass. Built with AddressSanitizer and UBSan it stops at the first bad read:
// tests/test_core_fuzz.py does that. Prints how many were opened and refused. Arguments: a sound blob, seconds, seed; for packed
// portraits a sound model pack, numbers, the side of crop, plate and picture, seconds, seed.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/core.h"

namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t kHeader = 32, kEntry = 48, kRecord = 40;

class Damage {
public:
    explicit Damage(unsigned seed) : random_(seed) {}

    size_t below(size_t count) { return count ? random_() % count : 0; }

    double number() {
        static const double kNumbers[] = {0.0,  -0.0, 1.0,   -1.0,  1e-30, -1e-30, 1e7, -1e7, 1e6, -1e6, 9.9e6, 1e-3, 100.0, -100.0, 0.5,
                                          1e38, 1e39, 1e308, 1e-45, std::numeric_limits<double>::infinity(), std::nan("")};
        return kNumbers[below(sizeof kNumbers / sizeof *kNumbers)];
    }

    int whole() {
        static const int kWholes[] = {0, 1, -1, 2, 20, 21, 477, 478, 851, 852, 897, 898, 65535, 1 << 20, INT32_MAX, INT32_MIN};
        return kWholes[below(sizeof kWholes / sizeof *kWholes)];
    }

    // Numbers of one array, of its own type, some or all.
    void numbers(Bytes& blob) {
        const size_t count = arrays(blob);
        if (!count) return;
        const uint8_t* entry = blob.data() + kHeader + kEntry * below(count);
        uint32_t type, size[3];
        uint64_t offset;
        std::memcpy(&type, entry + 24, 4);
        std::memcpy(size, entry + 28, 12);
        std::memcpy(&offset, entry + 40, 8);
        static const size_t kBytes[] = {1, 2, 4, 4, 8};
        if (type > 4) return;
        const size_t total = static_cast<size_t>(size[0]) * size[1] * size[2], width = kBytes[type];
        if (!total || offset > blob.size() || total > (blob.size() - offset) / width) return;
        const bool all = below(4) == 0;
        const size_t changes = all ? total : 1 + below(std::min<size_t>(total, 8));
        const double value = number(), factor = number();
        const int integer = whole();
        for (size_t i = 0; i < changes; ++i) {
            uint8_t* at = blob.data() + offset + width * (all ? i : below(total));
            if (type == 4) {
                double x;
                std::memcpy(&x, at, 8);
                x = all ? x * factor : value;
                std::memcpy(at, &x, 8);
            } else if (type == 3) {
                float x;
                std::memcpy(&x, at, 4);
                const double wide = all ? x * factor : value;
                x = std::fabs(wide) < 3e38 ? static_cast<float>(wide) : std::numeric_limits<float>::infinity();
                std::memcpy(at, &x, 4);
            } else {
                std::memcpy(at, &integer, width);
            }
        }
    }

    void directory(Bytes& blob) {
        const size_t count = arrays(blob);
        if (!count) return;
        uint8_t* entry = blob.data() + kHeader + kEntry * below(count);
        const uint8_t* other = blob.data() + kHeader + kEntry * below(count);
        const uint32_t value = static_cast<uint32_t>(whole());
        switch (below(5)) {
            case 0: std::memcpy(entry + 24, &value, 4); break;
            case 1: std::memcpy(entry + 28 + 4 * below(3), &value, 4); break;
            case 2: std::memcpy(entry + 40 + 4 * below(2), &value, 4); break;
            case 3: std::memcpy(entry + 40, other + 40, 8); break;  // two arrays in one place
            default: std::memcpy(entry + 24, other + 24, 24);
        }
    }

    void flip(Bytes& blob) {
        for (size_t i = 0, n = 1 + below(8); i < n; ++i)
            blob[below(below(2) ? std::min(blob.size(), kHeader + kEntry * arrays(blob)) : blob.size())] ^= 1u << below(8);
    }

    void cut(Bytes& blob) {
        blob.resize(below(blob.size()));
        const uint64_t size = blob.size();
        if (below(2) && blob.size() >= kHeader) std::memcpy(blob.data() + 16, &size, 8);
    }

    // Of a stream of numbers: the header of a record, its steps or its values; or bytes anywhere.
    void stream(Bytes& bytes) {
        std::vector<size_t> records, ends;
        static const size_t kBytes[] = {1, 2, 4, 4, 8, 2};
        for (size_t at = 16; at + kRecord <= bytes.size();) {
            uint32_t size[3];
            std::memcpy(size, bytes.data() + at + 28, 12);
            const uint8_t type = bytes[at + 24], stored = bytes[at + 25], coding = bytes[at + 26];
            if (stored > 5) break;
            const uint64_t total = uint64_t{size[0]} * size[1] * size[2], planes = coding > 2 ? size[2] : coding == 2 ? size[1] * size[2] : 1;
            const uint64_t end = at + kRecord + total * kBytes[stored] + (stored < 3 && (type == 3 || type == 4) && total ? 8 * planes : 0);
            if (end > bytes.size()) break;
            records.push_back(at);
            ends.push_back(end);
            at = end;
        }
        if (records.empty() || below(12) == 0) return bytes.empty() ? void() : below(2) ? bytes.resize(below(bytes.size())) : flip(bytes);
        const size_t i = below(records.size()), at = records[i], data = at + kRecord, size = ends[i] - data;
        const uint32_t value = static_cast<uint32_t>(whole());
        const double real = number();
        switch (below(8)) {
            case 0: bytes[at + 24 + below(4)] = static_cast<uint8_t>(below(8)); break;
            case 1: std::memcpy(bytes.data() + at + 28 + 4 * below(3), &value, 4); break;
            case 2: std::memcpy(bytes.data() + at, bytes.data() + records[below(records.size())], 24); break;
            case 3:
            case 4:
                if (size >= 8) std::memcpy(bytes.data() + data + (below(2) ? 0 : below(size - 7)), &real, 8);  // a step comes first
                break;
            default:
                for (size_t k = 0, n = 1 + below(8); size && k < n; ++k) bytes[data + below(size)] = static_cast<uint8_t>(below(256));
        }
    }

    void once(Bytes& blob) {
        if (blob.empty()) return;
        switch (below(10)) {
            case 0: return cut(blob);
            case 1: return flip(blob);
            case 2: return directory(blob);
            default: return numbers(blob);
        }
    }

private:
    size_t arrays(const Bytes& blob) const {
        uint32_t count = 0;
        if (blob.size() >= kHeader) std::memcpy(&count, blob.data() + 12, 4);
        return blob.size() >= kHeader ? std::min<size_t>(count, (blob.size() - kHeader) / kEntry) : 0;
    }

    std::mt19937 random_;
};

// Rest, talk, and anything.
void make_motion(Damage& damage, float* motion) {
    const size_t kind = damage.below(4);
    for (int i = 0; i < 70; ++i) {
        const float noise = static_cast<float>(damage.below(2001)) / 1000.0f - 1.0f;
        motion[i] = kind == 0 ? 0.0f : noise * (i >= 1 && i <= 3 ? 20.0f : 0.1f);
        if (kind == 3 && damage.below(8) == 0) {
            const double wild = damage.number();
            motion[i] = std::fabs(wild) < 3e38 ? static_cast<float>(wild) : std::numeric_limits<float>::quiet_NaN();
        }
    }
}

using Opened = std::unique_ptr<ditto::Core>;

Bytes read(const char* name) {
    std::ifstream file(name, std::ios::binary);
    return Bytes((std::istreambuf_iterator<char>(file)), {});
}

// A copy of its own size, so that a read behind the end is seen.
class Exact {
public:
    explicit Exact(const Bytes& bytes) : size(bytes.size()), copy_(new uint8_t[bytes.size()]) { std::copy(bytes.begin(), bytes.end(), copy_.get()); }
    const uint8_t* data() const { return copy_.get(); }
    const size_t size;

private:
    const std::unique_ptr<uint8_t[]> copy_;
};

Opened open_blob(const Bytes& sound, Damage& damage, size_t changes, std::string& error) {
    Bytes blob = sound;
    for (size_t i = 0; i < changes; ++i) damage.once(blob);
    const Exact exact(blob);
    return ditto::Core::open(exact.data(), exact.size, &error);
}

Opened unpack(const Bytes& model, const Bytes& numbers, int side, Damage& damage, size_t changes, std::string& error) {
    Bytes streams[2] = {model, numbers};
    for (size_t i = 0; i < changes; ++i) damage.stream(streams[damage.below(4) != 0]);
    const Exact a(streams[0]), b(streams[1]);
    Bytes pixels[3];
    ditto::Picture pictures[3];
    for (int i = 0; i < 3; ++i) {
        const bool other = changes && damage.below(16) == 0;
        const int height = other ? static_cast<int>(damage.below(2 * side)) : side, width = other && damage.below(2) ? height : side;
        const int channels = 3 + static_cast<int>(damage.below(2));
        pixels[i].resize(static_cast<size_t>(height) * width * channels);
        for (uint8_t& pixel : pixels[i]) pixel = static_cast<uint8_t>(damage.below(256));
        pictures[i] = {i == 0 && damage.below(8) == 0 ? nullptr : pixels[i].data(), height, width, channels};
    }
    return ditto::Core::unpack(a.data(), a.size, b.data(), b.size, pictures[0], pictures[1], pictures[2], &error);
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 4 && count != 6) return 2;
    const bool packed = count == 6;
    const Bytes first_file = read(arguments[1]), numbers = packed ? read(arguments[2]) : Bytes();
    const int side = packed ? std::atoi(arguments[3]) : 0;
    const double seconds = std::atof(arguments[count - 2]);
    Damage damage(static_cast<unsigned>(std::atoi(arguments[count - 1])));
    const auto begin = std::chrono::steady_clock::now();
    ditto::Workspace work;  // one for all, as a program with many portraits has it
    long opened = 0, refused = 0, drawn = 0, not_drawn = 0;
    for (bool first = true; std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < seconds; first = false) {
        const size_t changes = first ? 0 : 1 + damage.below(3);
        std::string error;
        const Opened core = packed ? unpack(first_file, numbers, side, damage, changes, error) : open_blob(first_file, damage, changes, error);
        if (!core) {
            if (error.empty() || first) return 3;  // a refusal says why; the file as it was is sound
            ++refused;
            continue;
        }
        ++opened;
        const size_t pixels = static_cast<size_t>(core->size()) * core->size();
        std::vector<uint8_t> crop(3 * pixels), picture(3 * static_cast<size_t>(core->picture_height()) * core->picture_width());
        for (int i = 0; i < 2; ++i) {
            float motion[70];
            make_motion(damage, motion);
            const ditto::Status status = core->frame(motion, work, crop.data(), picture.empty() ? nullptr : picture.data());
            (status == ditto::Status::kDrawn ? drawn : not_drawn) += 1;
        }
    }
    std::printf("opened %ld refused %ld drawn %ld not drawn %ld\n", opened, refused, drawn, not_drawn);
    return 0;
}
