// What a frame draws, layer by layer, once the pose is known.
#pragma once
#include <vector>

#include "core/geometry.h"

namespace ditto {

// surround.py: where the points around the face are, (count, 2) px.
void move_surround(const Portrait& portrait, const Pose& pose, float* moved);

// mesh.py: the face's triangles (inner, 3) from back to front.
class PaintersOrder {
public:
    void sort(const Portrait& portrait, const Pose& pose, int* triangles);

private:
    std::vector<double> depth_;
    std::vector<int> order_;
};

// background.py: where the picture moves, from the warp's map (2, size, size).
class PlateGate {
public:
    Plane make(const float* map, int size);

private:
    std::vector<float> moved_, line_, wide_, gate_, kernel_;
    int size_ = 0;
};

// creases.py: the portrait's own creases, deeper or shallower; nothing without expression. map (2, size, size) and parts of
// the warp.
void draw_creases(const Portrait& portrait, const Pose& pose, const float* map, const std::vector<Part>& parts, const Image& image);

// eyes.py: one eye over the warped picture; nothing where it is at rest.
void draw_eye(const Portrait& portrait, int index, const Pose& pose, std::vector<float>& curves, const Image& image);

// mouth.py: the skin at the corners of the mouth, then its inside; nothing with lips at rest.
void draw_mouth(const Portrait& portrait, const Pose& pose, std::vector<float>& columns, const Image& image);

}  // namespace ditto
