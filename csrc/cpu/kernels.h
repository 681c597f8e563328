// The kernels as plain functions: pictures and arrays in, results into memory that the caller gives. They check nothing;
// csrc/bindings.cpp calls them for ditto/ops, which checks shapes and types, and csrc/core for a whole frame. Arrays are
// in C order, pictures RGB uint8 unless a comment says otherwise. A workspace holds memory for the next call; it belongs to
// one thread at a time.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ditto {

struct Box {
    int left, top, right, bottom;  // pixels
};

struct Image {
    uint8_t* pixels;  // (height, width, 3)
    int height, width;
};

// An array of float32, (height, width) or (height, width, channels).
struct Plane {
    const float* data;
    int height, width;
};

// ---- warp.cpp; the definition is ditto/ops/reference/warp.py

// An affine map from picture to texture, valid in one triangle.
struct Affine {
    float ux, uy, vx, vy;          // barycentric u, v per picture pixel, from corner a
    float ax, ay;                  // corner a
    float s0, sx, sy, t0, tx, ty;  // texture position at corner a and per picture pixel
    float xmin, xmax, ymin, ymax;
    float shrinking;  // 0 .. 1
    bool valid;
};

struct Mesh {
    const int* triangles;  // (count, 3) vertex numbers in painter's order
    int count;
    const float *destination, *source;  // (V, 2) px
};

// What a pixel is put together of where the map breaks off or shrinks the texture: the weights of its parts are 1 together.
struct Part {
    int pixel;    // y * width + x
    float x, y;   // where in the texture it comes from
    float weight;
};

struct WarpWorkspace {
    std::vector<Part> parts;  // of the last call, by pixel
    std::vector<Affine> affines;
    std::vector<uint8_t> marks, row;
    std::vector<int> columns, first, owners;
};

// How many floats at once rows are sampled with. Tests choose; everything else takes the most that the processor has.
enum class Lanes { kMost = 0, kOne = 1, kFour = 4, kEight = 8 };

// texture (height, width, 4) RGBA -> rgb (height, width, 3), alpha (height, width), map (2, height, width), work.parts.
void warp(const uint8_t* texture, int height, int width, const Mesh& mesh, Lanes lanes, WarpWorkspace& work, uint8_t* rgb,
          uint8_t* alpha, float* map);

// A plane that moves with the colours, such as their alpha: its values, how far around each pixel they are all the same (px,
// along rows and columns, 255 at most), and what is behind the person; (height, width) each.
struct Carried {
    const uint8_t *values, *flat, *plate;
    uint8_t* out;  // (height, width)
};

// The values at the places of a map (2, height, width); pixels that have parts are put together of those.
void carry(const Carried& carried, int height, int width, const float* map, const std::vector<Part>& parts);

// ---- composite.cpp

// alpha (H, W), plate (H, W, 3), gate (h, w): bilinear over the image, cell centres. `carried`, if given, is laid over its plate
// alike.
void composite(const Image& image, const uint8_t* alpha, const uint8_t* plate, const Plane& gate, const Carried* carried = nullptr);

// ---- eyes.cpp

constexpr int kEyeChannels = 16, kLidColumns = 13;

// How one eye is seen in one frame; EyeView in ditto/ops/reference/eyes.py explains the fields.
struct EyeView {
    float to_source[12], centre[2], reach, to_eye[6], down[2], xi_limit, sharpness, gain, lid, bared, crease, shut;
    float turn, crisp, gaze[2], layered, hair, shadow, reach_up, reach_down;
};

// A box inside the image, texture (h, w, 16), curves (n, 13), strip (m, n).
void draw_eye(const Image& image, const Box& box, const Plane& texture, const float* curves, const Plane& strip,
              const EyeView& view);

// ---- mouth.cpp

constexpr int kMouthChannels = 23;

// Scene in ditto/ops/reference/mouth.py explains the fields.
struct MouthScene {
    float x_from_px[3], y_from_px[3], left, columns_per_unit, edge_px, teeth_per_unit;
    float cavity[3], tongue[3], tongue_middle, tongue_back, tongue_tip, tongue_half_width, tongue_light, widest;
    float own_shade, own_column[3], own_row[3];
    float upper_shadow, upper_reach, lower_shadow, lower_reach, lower_roll_shade, upper_roll_shade, grain, grain_per_unit, tint[3];
};

// (height, width, 4), premultiplied RGB 0 .. 255 and coverage 0 .. 1.
struct Teeth {
    Plane upper, lower, own;
};

// columns (count, 23), grain (g, g).
void paint_mouth(const Image& image, const Box& box, const float* columns, int count, const MouthScene& scene,
                 const Teeth& teeth, const Plane& grain);

// A mouth corner: where it lies and which way is outwards, in pixels; the last two in face units.
struct Corner {
    float x, y, outwards_x, outwards_y, scale, amount, reach, half;
};

void smooth_corner(const Image& image, const Box& box, const Corner& corner);

// ---- paste_back.cpp

struct Paste {
    int channels;            // C: 3 of colours, or 1
    const uint8_t* picture;  // (height, width, C)
    int height, width;
    const uint8_t* source;  // (side, side, C)
    int side;
    const float* ramp;        // (2, side)
    const double* to_crop;    // (2, 3) picture -> crop
    int x, y, columns, rows;  // the part of the picture that the crop touches
    const int16_t* detail;    // (rows, columns, C), or null for none
    int reduce;
};

struct PasteWorkspace {
    std::vector<int16_t> difference;
    std::vector<float> small;
};

// rendered (side, side, C) -> frame (height, width, C).
void paste_back(const Paste& paste, const uint8_t* rendered, PasteWorkspace& work, uint8_t* frame);

}  // namespace ditto
