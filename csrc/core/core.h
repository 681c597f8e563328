// The core: one frame of a lite portrait from a flat blob and the 70 numbers of a motion. No Python, no threads of its own, no
// exception leaves it.
//
//     std::string error;
//     std::unique_ptr<ditto::Core> core = ditto::Core::open(bytes, size, &error);   // null: `error` says why
//     ditto::Workspace work;
//     core->frame(motion, work, crop, nullptr);
//
// A core never changes after `open`: any number of threads may draw with it, each with a workspace of its own. What a frame
// shows is defined by ditto/lite/rendering/mesh.py.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace ditto {

struct Carried;  // a plane that moves with the colours: cpu/kernels.h
struct Portrait;

enum class Status {
    kDrawn,
    kUnusableNumbers,  // of the motion, NaN or infinity, or of a damaged portrait
    kNoPicture,        // a picture was asked for, and the blob has none to paste the crop into
    kNoMemory,
};

// Memory for drawing, kept from one frame to the next.
class Workspace {
public:
    Workspace();
    ~Workspace();
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;

private:
    friend class Core;
    struct Buffers;
    std::unique_ptr<Buffers> buffers_;
};

// A decoded picture, RGB or RGBA (A is ignored), its rows one behind the other.
struct Picture {
    const uint8_t* rgb;
    int height, width, channels;
};

class Core {
public:
    // Copies the blob and checks all of it.
    static std::unique_ptr<Core> open(const void* blob, size_t bytes, std::string* error) noexcept;

    // The same from the parts of a packed portrait (packed.h): the model pack, and the portrait's numbers, inflated, with its
    // decoded pictures. Without a picture (`picture.rgb` null) the core draws crops alone.
    static std::unique_ptr<Core> unpack(const void* model, size_t model_bytes, const void* numbers, size_t numbers_bytes,
                                        const Picture& picture, const Picture& crop, const Picture& plate,
                                        std::string* error) noexcept;
    ~Core();

    int size() const;  // of the crop, which is square
    bool has_picture() const;
    int picture_height() const;
    int picture_width() const;
    int vertices() const;  // landmarks, then points around the face

    // Draws a motion (70). crop (size, size, 3) and picture (height, width, 3) RGB; null for one that is not needed. `carried`,
    // if given, (size, size), moves along.
    Status frame(const float* motion, Workspace& work, uint8_t* crop, uint8_t* picture,
                 const Carried* carried = nullptr) const noexcept;

    // Where the mesh of a motion is: (vertices, 2) px of the crop.
    Status place(const float* motion, Workspace& work, float* positions) const noexcept;

private:
    explicit Core(std::unique_ptr<Portrait> portrait);
    bool place_mesh(const float* motion, Workspace::Buffers& buffers) const;
    std::unique_ptr<Portrait> portrait_;
};

}  // namespace ditto
