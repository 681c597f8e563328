#include <algorithm>
#include <cmath>

#include "core/layers.h"

namespace ditto {

namespace {

// eyes.py and eyelids.py
constexpr double kGazeLimit[2] = {0.30, 0.16}, kLowerRange[2] = {-0.35, 0.25}, kUpperShare = 0.88, kXiLimit = 0.80;
constexpr double kFitReach = 0.15, kBoxMargin = 0.075;  // fu
constexpr float kHairLength = 0.045f, kShadow = 0.35f, kReach = 0.045f;
constexpr double kLargestOfView = 1e9;  // of any number of a view; with larger ones the kernel would run out of float32

enum LidColumn { kLine, kLower, kEdge, kLift, kRise };

// Least squares of a quadratic map from the frame to the texture: weights of 1, x, y, xx, xy, yy for x and y. False where the
// landmarks do not determine it.
bool fit_to_source(const Portrait& portrait, const Eye& eye, const Pose& pose, const double* centre, double reach, double (*fit)[6]) {
    double system[6][8] = {};  // normal equations with two right sides
    for (int i = 0; i < eye.anchor_count; ++i) {
        const Vec3& now = pose.vertices[eye.anchors[i]];
        const double* source = portrait.landmarks + 3 * eye.anchors[i];
        const double x = (now[0] - centre[0]) / reach, y = (now[1] - centre[1]) / reach;
        const double row[8] = {1.0, x, y, x * x, x * y, y * y, source[0] - eye.origin[0], source[1] - eye.origin[1]};
        for (int r = 0; r < 6; ++r)
            for (int k = 0; k < 8; ++k) system[r][k] += eye.anchor_weights[i] * row[r] * row[k];
    }
    for (int r = 0; r < 6; ++r) {
        int pivot = r;
        for (int k = r + 1; k < 6; ++k)
            if (std::fabs(system[k][r]) > std::fabs(system[pivot][r])) pivot = k;
        std::swap_ranges(system[r], system[r] + 8, system[pivot]);
        if (!(std::fabs(system[r][r]) > 1e-12)) return false;
        for (int k = 0; k < 6; ++k) {
            if (k == r) continue;
            const double factor = system[k][r] / system[r][r];
            for (int j = r; j < 8; ++j) system[k][j] -= factor * system[r][j];
        }
    }
    for (int r = 0; r < 6; ++r)
        for (int k = 0; k < 2; ++k) fit[k][r] = system[r][6 + k] / system[r][r];
    return true;
}

// Every number of a view is finite and of a size that the kernel can use.
bool usable(const EyeView& view) {
    const float* number = reinterpret_cast<const float*>(&view);
    bool all = true;
    for (size_t i = 0; i < sizeof view / sizeof(float); ++i) all &= std::fabs(number[i]) <= kLargestOfView;
    return all;
}

}  // namespace

void draw_eye(const Portrait& portrait, int index, const Pose& pose, std::vector<float>& curves, const Image& image) {
    const Eye& eye = portrait.eyes[index];
    double turn[2], gaze[2];
    for (int j = 0; j < 2; ++j) {
        const double limit = kGazeLimit[j] * eye.frame_width;
        turn[j] = clip(pose.delta[eye.ids.iris_keypoint][j], -limit, limit) * eye.has_iris;
    }
    for (int j = 0; j < 2; ++j)
        gaze[j] = portrait.scale_px * (turn[0] * portrait.rotation[j] + turn[1] * portrait.rotation[3 + j]);
    const double gaze_px = std::hypot(gaze[0], gaze[1]);

    const double lower_lids = pose.delta[kLowerLids][1] / std::max(eye.height, 1e-3);
    const double drop = clip(lower_lids, kLowerRange[0], kLowerRange[1]) * eye.height * eye.has_iris;
    const double b = pose.closure[index] * eye.has_iris, shut = std::max(b, 0.0);
    const double moved_px = std::max({std::fabs(b) * eye.height * pose.scale_px, std::fabs(drop) * pose.scale_px, gaze_px});
    const double gain = smoothstep(0.0, 1.2, moved_px);
    if (gain <= 0.0) return;
    const int columns = eye.strip.width;
    curves.assign(eye.still, eye.still + static_cast<size_t>(columns) * kLidColumns);
    for (int i = 0; i < columns; ++i) {
        const double travel = b > 0.0 ? eye.travel[i] : eye.gap[i];
        const double line = eye.upper[i] + b * travel + drop * eye.profile[i];
        const double lower = eye.lower[i] - (1.0 - kUpperShare) * shut * eye.gap[i] + drop * eye.profile[i];
        const double rise = eye.upper[i] - line;
        float* out = curves.data() + static_cast<size_t>(i) * kLidColumns;
        out[kLine] = static_cast<float>(line);
        out[kLower] = static_cast<float>(lower);
        out[kLift] = static_cast<float>(std::max(rise, 0.0) + std::min(rise + shut * travel, 0.0));
        out[kRise] = static_cast<float>(eye.lower[i] - lower);
    }

    double centre[2] = {0.0, 0.0}, low[2] = {1e9, 1e9}, high[2] = {-1e9, -1e9};
    for (int i = 0; i < eye.anchor_count; ++i)
        for (int j = 0; j < 2; ++j) {
            const double at = pose.vertices[eye.anchors[i]][j];
            centre[j] += at / eye.anchor_count;
            low[j] = std::min(low[j], at);
            high[j] = std::max(high[j], at);
        }
    const double reach = kFitReach * pose.scale_px;
    double fit[2][6], to_eye[6], jacobian[2][2];
    if (!fit_to_source(portrait, eye, pose, centre, reach, fit)) return;
    for (int r = 0; r < 2; ++r) {
        const double* m = eye.matrix + 3 * r;
        to_eye[3 * r] = m[0];
        to_eye[3 * r + 1] = m[1];
        to_eye[3 * r + 2] = m[2] + m[0] * eye.origin[0] + m[1] * eye.origin[1];
        for (int k = 0; k < 2; ++k) jacobian[r][k] = (m[0] * fit[0][1 + k] + m[1] * fit[1][1 + k]) / reach;
    }
    const double det = jacobian[0][0] * jacobian[1][1] - jacobian[0][1] * jacobian[1][0];
    if (!(std::fabs(det) >= 1e-9)) return;  // an eye seen edge on: nothing to draw
    const double down[2] = {-jacobian[0][1] / det, jacobian[0][0] / det}, margin = kBoxMargin * pose.scale_px;
    const Box box{std::max(static_cast<int>(std::floor(low[0] - margin)), 0),
                  std::max(static_cast<int>(std::floor(low[1] - margin)), 0),
                  std::min(static_cast<int>(std::ceil(high[0] + margin)) + 1, portrait.size),
                  std::min(static_cast<int>(std::ceil(high[1] + margin)) + 1, portrait.size)};
    if (box.right <= box.left || box.bottom <= box.top) return;

    EyeView view;
    for (int r = 0; r < 2; ++r) {
        for (int k = 0; k < 6; ++k) view.to_source[6 * r + k] = static_cast<float>(fit[r][k]);
        for (int k = 0; k < 3; ++k) view.to_eye[3 * r + k] = static_cast<float>(to_eye[3 * r + k]);
        view.centre[r] = static_cast<float>(centre[r]);
        view.down[r] = static_cast<float>(down[r]);
        view.gaze[r] = static_cast<float>(gaze[r]);
    }
    view.reach = static_cast<float>(reach);
    view.xi_limit = static_cast<float>(kXiLimit);
    view.sharpness = static_cast<float>(std::hypot(down[0], down[1]) /
                                        std::max(1.0, 1.6 * eye.soft * pose.scale_px / portrait.scale_px));
    view.gain = static_cast<float>(gain);
    view.lid = static_cast<float>(smoothstep(0.0, 0.14, b));
    view.bared = static_cast<float>(smoothstep(0.0, 0.22, b));
    view.crease = static_cast<float>(0.7 * smoothstep(0.30, 0.90, b));
    view.shut = static_cast<float>(smoothstep(0.40, 0.95, b));
    view.turn = static_cast<float>(smoothstep(0.15, 0.75, b));
    view.crisp = static_cast<float>(smoothstep(0.06, 0.40, b));
    view.layered = static_cast<float>(smoothstep(0.0, 1.5, gaze_px));
    view.hair = kHairLength;
    view.shadow = kShadow;
    view.reach_up = view.reach_down = kReach;
    if (usable(view)) draw_eye(image, box, eye.texture, curves.data(), eye.strip, view);
}

}  // namespace ditto
