// The core for WebAssembly: a module holds one face. clients/web/core.js calls this; build.py builds it.
//
//     alloc(n) -> memory for the caller to write into
//     open(blob, n), or unpack(model, n, numbers, n, picture, crop, plate) with each picture as RGBA, height, width
//         -> 1, or 0: `error` says why
//     draw(motion) -> 1, or 0: `picture` holds the frame, RGBA (height, width, 4)
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "core/blob.h"
#include "core/core.h"

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

namespace {

struct Face {
    std::unique_ptr<ditto::Core> core;
    ditto::Workspace work;
    std::vector<uint8_t> rgb, rgba;
    std::string error;
};

Face& face() {
    static Face one;
    return one;
}

int refuse(const std::string& error) {
    face().error = error;
    return 0;
}

int take(std::unique_ptr<ditto::Core> core) {
    Face& f = face();
    if (!core) return 0;
    if (!core->has_picture()) return refuse("expected a portrait with a picture, got one without; make it with the picture");
    const size_t pixels = static_cast<size_t>(core->picture_height()) * core->picture_width();
    f.rgb.resize(3 * pixels);
    f.rgba.assign(4 * pixels, 255);
    f.core = std::move(core);
    return 1;
}

}  // namespace

EXPORT(blob_version) uint32_t ditto_blob_version() { return ditto::kBlobVersion; }

EXPORT(alloc) void* ditto_alloc(size_t bytes) { return std::malloc(bytes); }
EXPORT(release) void ditto_release(void* memory) { std::free(memory); }

EXPORT(open) int ditto_open(const void* blob, size_t bytes) {
    face().core.reset();
    return take(ditto::Core::open(blob, bytes, &face().error));
}

EXPORT(unpack) int ditto_unpack(const void* model, size_t model_bytes, const void* numbers, size_t numbers_bytes,
                                const uint8_t* picture, int picture_height, int picture_width, const uint8_t* crop,
                                int crop_height, int crop_width, const uint8_t* plate, int plate_height, int plate_width) {
    face().core.reset();
    return take(ditto::Core::unpack(model, model_bytes, numbers, numbers_bytes, {picture, picture_height, picture_width, 4},
                                    {crop, crop_height, crop_width, 4}, {plate, plate_height, plate_width, 4},
                                    &face().error));
}

EXPORT(error) const char* ditto_error() { return face().error.c_str(); }
EXPORT(error_bytes) size_t ditto_error_bytes() { return face().error.size(); }

EXPORT(width) int ditto_width() { return face().core ? face().core->picture_width() : 0; }
EXPORT(height) int ditto_height() { return face().core ? face().core->picture_height() : 0; }
EXPORT(picture) const uint8_t* ditto_picture() { return face().rgba.data(); }

EXPORT(draw) int ditto_draw(const float* motion) {
    Face& f = face();
    if (!f.core) return refuse("expected a face to draw, got none; open one first");
    switch (f.core->frame(motion, f.work, nullptr, f.rgb.data())) {
        case ditto::Status::kDrawn: break;
        case ditto::Status::kUnusableNumbers:
            return refuse("expected finite numbers that lead to a face near the picture, got others; check where the motion comes from");
        case ditto::Status::kNoPicture: return refuse("expected a portrait with a picture, got one without; make it with the picture");
        case ditto::Status::kNoMemory: return refuse("expected memory for a frame, got none; close other pages");
    }
    const uint8_t* from = f.rgb.data();
    uint8_t* to = f.rgba.data();
    for (size_t i = 0, pixels = f.rgba.size() / 4; i < pixels; ++i, from += 3, to += 4) {
        to[0] = from[0];
        to[1] = from[1];
        to[2] = from[2];
    }
    return 1;
}
