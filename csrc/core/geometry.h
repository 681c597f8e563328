// From a motion to where the face is: what ditto/lite/rendering/deform.py, eyelids.py, mouth.py and mesh.py say in NumPy, which
// is the definition. Constants have the names and the sources of their Python.
#pragma once
#include "core/portrait.h"

namespace ditto {

constexpr int kRightBrow = 1, kLeftBrow = 2, kRightCheek = 3, kNeck = 5, kRightCorner = 6, kLeftCheek = 7, kLeftCorner = 12;
constexpr int kUpperInnerLip = 14, kLowerInnerLip = 17, kLowerLids = 18, kChin = 19;
constexpr double kPartedLips = 0.018;  // fu: PARTED_LIPS

// Where the face is in one frame. As `Pose` in ditto/portrait/face_mesh.py.
struct Pose {
    double scale_px;
    Mat3 rotation;
    Vec3 translation_px;
    Vec3 delta[kKeypoints];  // fu, head frame, clamped
    Vec3 canonical[kLandmarks], vertices[kLandmarks];
    double closure[2];  // right, left

    Vec3 displacement[kLandmarks], before[kLandmarks];  // of the landmarks, on the way
    std::vector<double> folding;                        // (face + 1), on the way
};

// False if the numbers lead out of any picture: a damaged portrait, or a motion that is not finite.
bool make_pose(const Portrait& portrait, const float* motion, Pose& pose);

}  // namespace ditto
