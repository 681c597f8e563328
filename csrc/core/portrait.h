// One portrait, ready to be drawn: the arrays of a blob by the names that ditto/lite/rendering gives them, all checked.
#pragma once
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "core/blob.h"
#include "cpu/kernels.h"

namespace ditto {

constexpr int kLandmarks = 478, kKeypoints = 21, kMotionSize = 70;
constexpr int kBasisKeypoints = 18, kBasisSize = 3 * kBasisKeypoints;
constexpr int kLip = 11;            // landmarks along a contour of a lip
constexpr int kMouthColumns = 128;  // COLUMNS in mouth.py
constexpr int kCreases = 6;         // PATHS in creases.py

using Vec3 = std::array<double, 3>;
using Mat3 = std::array<double, 9>;  // row vectors: p @ m

// `low` for NaN.
inline double clip(double x, double low, double high) { return x > low ? (x < high ? x : high) : low; }

// 0 at `low`, 1 at `high` (which may be the smaller), cubic between.
inline double smoothstep(double low, double high, double x) {
    const double u = clip((x - low) / (high - low), 0.0, 1.0);
    return u * u * (3.0 - 2.0 * u);
}

inline Vec3 times(const double* p, const Mat3& m) {
    Vec3 out;
    for (int j = 0; j < 3; ++j) out[j] = p[0] * m[j] + p[1] * m[3 + j] + p[2] * m[6 + j];
    return out;
}

// What is the same for every portrait of a bundle: the learned basis and the topology of the mesh.
struct Model {
    const float* basis;                                // (54, 478 * 3)
    const double *components, *limits, *low, *high;    // (54, 54), (54), (21, 3), (21, 3)
    const int32_t* basis_keypoints;                    // (18)
    const int32_t* triangles;                          // (inner, 3): face, mouth, eyes
    int face, inner;                                   // how many of the face, and in all
    const double *lift, *front;                        // (inner): fu nearer to the camera; sign of the area seen from its front
    const int32_t *neighbours, *triangles_of;          // (478, degree), (corners, 478) where `face` is none
    const double* neighbour_weights;                   // (478, degree)
    int degree, corners;
    const uint8_t* may_fold;                           // (478)
    const int32_t *upper_inner, *lower_inner, *upper_outer, *lower_outer;  // (11) each
    const int32_t* chains;                             // landmarks from the lips outwards; -1 ends a chain
    int chains_size;
    const double *arc, *arch_x, *arch_z;               // (arch): the dental curve
    int arch;
};

struct EyeIds {
    const int32_t *upper, *lower, *ring;  // (9) each
    int iris, lid_keypoint, iris_keypoint;
};

struct Eye {
    EyeIds ids;
    const int32_t* anchors;  // (count)
    const double* anchor_weights;
    int anchor_count;
    double frame_width;  // fu
    double has_iris, soft, height;
    const double *matrix, *origin;                              // (2, 3), (2)
    const double *gap, *profile, *travel, *upper, *lower;       // (columns)
    const float* still;                                         // (columns, 13)
    Plane texture, strip;
};

struct Mouth {
    const double *anchor, *own_gap, *overlap;  // (3), (11), (2, samples)
    int samples;
    double width, upper_edge, lower_edge, arch_z, blur_px, side_light;
    bool has_own;
    double own_slope, own_bow;
    const double* own_from_plane;  // (2, 3)
    double upper_per_unit, upper_row, lower_per_unit, lower_row;
    const double *cavity, *tongue, *tint;  // (3) RGB
    Teeth teeth;
    Plane grain;
    const float* still;  // (128, 23)
};

// The relief of the skin along one path (`Field` in creases.py).
struct Crease {
    const uint8_t* relief;  // (height, width), two or more each way
    int height, width;
    const int32_t *corner, *landmarks;  // (2), (count)
    int count;
};

struct Surround {
    int count, outline_count, triangle_count;
    const int32_t *outline, *neighbours, *triangles;  // (outline), (count, 6), (triangles, 3)
    const double *points, *canonical, *head_weight, *body_weight, *shares;  // (count, 2), 3, (2, 2), 2, 6
};

// A landmark at the rim and the landmarks that it moves with.
struct Follow {
    int landmark;
    std::vector<std::pair<int, double>> shares;
};

struct Portrait {
    static std::unique_ptr<Portrait> open(const void* bytes, size_t size, std::string* error);

    Portrait(const void* bytes, size_t size) : blob(bytes, size) {}

    Blob blob;  // owns what the pointers point to
    Model model;
    int size;  // of the crop
    double scale_px, model_scale;  // px per fu; model units per fu
    Vec3 translation_px, translation;
    Mat3 rotation, model_rotation;
    const double *landmarks, *canonical, *keypoints;  // (478, 3) px, (478, 3) fu, (21, 3) fu
    Vec3 rest[kKeypoints];                            // what the portrait's own expression takes off: head frame, fu
    double lid_scale[2];                              // right, left: of a lid's travel
    std::vector<double> rest_area;                    // (face)
    std::vector<Follow> rim;
    const uint8_t* hidden;  // (face)
    const uint8_t *texture, *plate;  // (S, S, 4), (S, S, 3)
    const float* source;             // (478 + count, 2)
    Surround surround;
    Eye eyes[2];  // right, left
    Mouth mouth;
    Crease creases[kCreases];
    const double* crease_tint;  // (3)
    bool has_picture;
    Paste paste;

    const double* at(int landmark) const { return canonical + 3 * landmark; }
    double inner_gap() const { return at(14)[1] - at(13)[1]; }

private:
    void take_model();
    void take_geometry();
    void take_surround();
    void take_eye(const std::string& side, int index);
    void take_mouth();
    void take_creases();
    void take_picture();
};

}  // namespace ditto
