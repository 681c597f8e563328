#include "core/core.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "core/layers.h"
#include "core/packed.h"

namespace ditto {

struct Workspace::Buffers {
    Pose pose;
    std::vector<float> destination, map, curves, columns;
    std::vector<int> triangles;
    std::vector<uint8_t> crop, alpha;
    PaintersOrder order;
    PlateGate gate;
    WarpWorkspace warp;
    PasteWorkspace paste;
};

Workspace::Workspace() = default;
Workspace::~Workspace() = default;

Core::Core(std::unique_ptr<Portrait> portrait) : portrait_(std::move(portrait)) {}
Core::~Core() = default;

std::unique_ptr<Core> Core::open(const void* blob, size_t bytes, std::string* error) noexcept {
#if defined(__cpp_exceptions)
    try {
#endif
        std::unique_ptr<Portrait> portrait = Portrait::open(blob, bytes, error);
        return portrait ? std::unique_ptr<Core>(new Core(std::move(portrait))) : nullptr;
#if defined(__cpp_exceptions)
    } catch (const std::bad_alloc&) {
        *error = "expected memory for a portrait, got none; close others";
        return nullptr;
    }
#endif
}

std::unique_ptr<Core> Core::unpack(const void* model, size_t model_bytes, const void* numbers, size_t numbers_bytes,
                                   const Picture& picture, const Picture& crop, const Picture& plate,
                                   std::string* error) noexcept {
#if defined(__cpp_exceptions)
    try {
#endif
        const std::vector<uint8_t> blob = unpack_blob(model, model_bytes, numbers, numbers_bytes, picture, crop, plate, error);
        return blob.empty() ? nullptr : open(blob.data(), blob.size(), error);
#if defined(__cpp_exceptions)
    } catch (const std::bad_alloc&) {
        *error = "expected memory for a portrait, got none; close others";
        return nullptr;
    }
#endif
}

int Core::size() const { return portrait_->size; }
bool Core::has_picture() const { return portrait_->has_picture; }
int Core::picture_height() const { return portrait_->has_picture ? portrait_->paste.height : 0; }
int Core::picture_width() const { return portrait_->has_picture ? portrait_->paste.width : 0; }
int Core::vertices() const { return kLandmarks + portrait_->surround.count; }

bool Core::place_mesh(const float* motion, Workspace::Buffers& b) const {
    const Portrait& p = *portrait_;
    if (!make_pose(p, motion, b.pose)) return false;
    b.destination.resize(2 * static_cast<size_t>(vertices()));
    for (int i = 0; i < kLandmarks; ++i)
        for (int j = 0; j < 2; ++j) b.destination[2 * i + j] = static_cast<float>(b.pose.vertices[i][j]);
    move_surround(p, b.pose, b.destination.data() + 2 * kLandmarks);
    return std::all_of(b.destination.begin(), b.destination.end(), [](float x) { return std::fabs(x) < 1e7f; });
}

Status Core::place(const float* motion, Workspace& work, float* positions) const noexcept {
#if defined(__cpp_exceptions)
    try {
#endif
        if (!work.buffers_) work.buffers_ = std::make_unique<Workspace::Buffers>();
        if (!place_mesh(motion, *work.buffers_)) return Status::kUnusableNumbers;
        std::copy(work.buffers_->destination.begin(), work.buffers_->destination.end(), positions);
        return Status::kDrawn;
#if defined(__cpp_exceptions)
    } catch (const std::bad_alloc&) {
        return Status::kNoMemory;
    }
#endif
}

Status Core::frame(const float* motion, Workspace& work, uint8_t* crop, uint8_t* picture,
                   const Carried* carried) const noexcept {
#if defined(__cpp_exceptions)
    try {
#endif
        const Portrait& p = *portrait_;
        if (picture && !p.has_picture) return Status::kNoPicture;
        if (!work.buffers_) work.buffers_ = std::make_unique<Workspace::Buffers>();
        Workspace::Buffers& b = *work.buffers_;
        if (!place_mesh(motion, b)) return Status::kUnusableNumbers;
        const size_t pixels = static_cast<size_t>(p.size) * p.size;
        if (!crop) {
            b.crop.resize(3 * pixels);
            crop = b.crop.data();
        }
        b.alpha.resize(pixels);
        b.map.resize(2 * pixels);
        const int around = 3 * p.surround.triangle_count;
        b.triangles.resize(static_cast<size_t>(around) + 3 * static_cast<size_t>(p.model.inner));
        std::copy_n(p.surround.triangles, around, b.triangles.begin());
        b.order.sort(p, b.pose, b.triangles.data() + around);
        const Mesh mesh{b.triangles.data(), static_cast<int>(b.triangles.size() / 3), b.destination.data(), p.source};
        warp(p.texture, p.size, p.size, mesh, Lanes::kMost, b.warp, crop, b.alpha.data(), b.map.data());

        const Image image{crop, p.size, p.size};
        draw_creases(p, b.pose, b.map.data(), b.warp.parts, image);
        for (int eye = 0; eye < 2; ++eye) draw_eye(p, eye, b.pose, b.curves, image);
        const Plane gate = b.gate.make(b.map.data(), p.size);
        if (carried) carry(*carried, p.size, p.size, b.map.data(), b.warp.parts);
        composite(image, b.alpha.data(), p.plate, gate, carried);
        draw_mouth(p, b.pose, b.columns, image);
        if (picture) paste_back(p.paste, crop, b.paste, picture);
        return Status::kDrawn;
#if defined(__cpp_exceptions)
    } catch (const std::bad_alloc&) {
        return Status::kNoMemory;
    }
#endif
}

}  // namespace ditto
