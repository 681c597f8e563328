#include "core/geometry.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace ditto {

namespace {

constexpr double kPi = 3.14159265358979323846;
constexpr int kUpperLids[2] = {13, 16};
// Limits of a motion, MOTION_LIMITS in mesh.py: scale - 1, degrees, translation and expression.
constexpr double kScaleLow = -0.9, kScaleHigh = 9.0, kDegrees = 360.0, kFaceUnits = 10.0;
constexpr double kFarthest = 1e6;  // px: of a vertex; float32 holds eighths of a pixel there
constexpr double kWidest = 1e3;    // fu: of the face without its pose

// deform.py
constexpr double kClampKnee = 0.75;
constexpr double kFoldArea = 0.22, kFoldSpan[2] = {0.5, 2e-4}, kFoldKeep = 0.4;
constexpr int kFoldSteps = 3;
// mouth.py
constexpr double kPress = 0.004, kNarrowest = 0.36, kKeep = 0.45, kKeepAlong = 0.25, kThicken = 1.75;
constexpr double kLipRises[] = {0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 0.5};
// eyelids.py
constexpr double kApertureFloor = 0.6, kClosureRange[2] = {-0.45, 1.0}, kSnap[2] = {0.60, 0.92}, kRingFollows = 0.35;

// (Rz(roll) Ry(yaw) Rx(pitch)).T
Mat3 rotation_matrix(double pitch, double yaw, double roll) {
    const double p = pitch * (kPi / 180), y = yaw * (kPi / 180), r = roll * (kPi / 180);
    const double cp = std::cos(p), sp = std::sin(p), cy = std::cos(y), sy = std::sin(y), cr = std::cos(r), sr = std::sin(r);
    return {cr * cy,                sr * cy,                -sy,      //
            cr * sy * sp - sr * cp, sr * sy * sp + cr * cp, cy * sp,  //
            cr * sy * cp + sr * sp, sr * sy * cp - cr * sp, cy * cp};
}

// motion.retarget, and to pixels
void retarget(const Portrait& portrait, const float* motion, Pose& pose) {
    double degrees[3], shift[3];
    for (int i = 0; i < 3; ++i) {
        degrees[i] = clip(motion[1 + i], -kDegrees, kDegrees);
        shift[i] = clip(motion[4 + i], -kFaceUnits, kFaceUnits);
    }
    const Mat3 turn = rotation_matrix(degrees[0], degrees[1], degrees[2]);
    const double half = portrait.size / 2.0;
    const double scale = portrait.model_scale * (1.0 + clip(motion[0], kScaleLow, kScaleHigh));
    pose.scale_px = scale * half;
    for (int i = 0; i < 3; ++i) {
        const Vec3 row = times(portrait.model_rotation.data() + 3 * i, turn);
        std::copy(row.begin(), row.end(), pose.rotation.begin() + 3 * i);
        pose.translation_px[i] = (portrait.translation[i] + scale * shift[i]) * half + (i < 2 ? half : 0.0);
    }
    for (int k = 0; k < kKeypoints; ++k) {
        double e[3];
        for (int i = 0; i < 3; ++i) e[i] = clip(motion[7 + 3 * k + i], -kFaceUnits, kFaceUnits);
        for (int j = 0; j < 3; ++j)  // expression @ turn.T
            pose.delta[k][j] = e[0] * turn[3 * j] + e[1] * turn[3 * j + 1] + e[2] * turn[3 * j + 2];
    }
    for (int side = 0; side < 2; ++side) pose.delta[kUpperLids[side]][1] *= portrait.lid_scale[side];
    for (int k = 0; k < kKeypoints; ++k)
        for (int j = 0; j < 3; ++j) pose.delta[k][j] -= portrait.rest[k][j];
}

void clamp_keypoints(const Model& model, Vec3* delta) {
    for (int k = 0; k < kKeypoints; ++k)
        for (int j = 0; j < 3; ++j) delta[k][j] = clip(delta[k][j], model.low[3 * k + j], model.high[3 * k + j]);
    double flat[kBasisSize], excess[kBasisSize];
    for (int i = 0; i < kBasisSize; ++i) flat[i] = delta[model.basis_keypoints[i / 3]][i % 3];
    bool any = false;
    for (int i = 0; i < kBasisSize; ++i) {
        const double* row = model.components + kBasisSize * i;
        double c = 0.0;
        for (int j = 0; j < kBasisSize; ++j) c += row[j] * flat[j];
        const double size = std::fabs(c), knee = kClampKnee * model.limits[i], room = (1.0 - kClampKnee) * model.limits[i];
        excess[i] = 0.0;
        if (size > knee) {
            any = true;
            excess[i] = (size - (knee + room * std::tanh((size - knee) / room))) * (c < 0.0 ? -1.0 : 1.0);
        }
    }
    if (!any) return;
    const Vec3 upper_lids[2] = {delta[kUpperLids[0]], delta[kUpperLids[1]]};
    const double lower_lids = delta[kLowerLids][1];
    for (int j = 0; j < kBasisSize; ++j) {
        double sum = 0.0;
        for (int i = 0; i < kBasisSize; ++i) sum += excess[i] * model.components[kBasisSize * i + j];
        delta[model.basis_keypoints[j / 3]][j % 3] -= sum;
    }
    for (int side = 0; side < 2; ++side) delta[kUpperLids[side]] = upper_lids[side];
    delta[kLowerLids][1] = lower_lids;
}

void limit_lips(const Portrait& portrait, Vec3* delta) {
    const double gap = portrait.inner_gap();
    const double room = std::max(gap, 0.0) - (gap < kPartedLips ? 0.010 : 0.004);
    const double least = -std::max(room + 0.008, kPress);
    const double over = std::min(delta[kLowerInnerLip][1] - delta[kUpperInnerLip][1] - least, 0.0);
    delta[kLowerInnerLip][1] -= over;
    delta[kChin][1] -= 0.5 * over;

    const double limit = kNarrowest * (portrait.keypoints[3 * kLeftCorner] - portrait.keypoints[3 * kRightCorner]);
    const double narrowing = delta[kRightCorner][0] - delta[kLeftCorner][0], knee = 0.6 * limit;
    if (!(narrowing > knee)) return;
    const double kept = (knee + (limit - knee) * std::tanh((narrowing - knee) / (limit - knee))) / narrowing;
    const double middle = 0.5 * (delta[kRightCorner][0] + delta[kLeftCorner][0]);
    for (int corner : {kRightCorner, kLeftCorner}) delta[corner][0] = middle + kept * (delta[corner][0] - middle);
}

void displace(const Portrait& portrait, Pose& pose) {
    const Model& model = portrait.model;
    float change[3 * kLandmarks] = {};
    for (int i = 0; i < kBasisSize; ++i) {
        const float weight = static_cast<float>(pose.delta[model.basis_keypoints[i / 3]][i % 3]);
        const float* row = model.basis + static_cast<size_t>(i) * 3 * kLandmarks;
        for (int j = 0; j < 3 * kLandmarks; ++j) change[j] += weight * row[j];
    }
    for (int i = 0; i < kLandmarks; ++i)
        for (int j = 0; j < 3; ++j) pose.displacement[i][j] = change[3 * i + j];
    for (const Eye& eye : portrait.eyes)
        for (int i = 0; i < 5; ++i) pose.displacement[eye.ids.iris + i] = pose.delta[eye.ids.iris_keypoint];
}

void move_lids(const Portrait& portrait, Pose& pose) {
    for (int side = 0; side < 2; ++side) {
        const EyeIds& ids = portrait.eyes[side].ids;
        for (int i = 0; i < 9; ++i) pose.displacement[ids.upper[i]] = pose.displacement[ids.lower[i]] = {0.0, 0.0, 0.0};
        for (int i = 0; i < 9; ++i)
            for (double& x : pose.displacement[ids.ring[i]]) x *= kRingFollows;
        const double middle = portrait.at(ids.lower[4])[1] - portrait.at(ids.upper[4])[1];
        const double lids = portrait.keypoints[3 * kLowerLids + 1] - portrait.keypoints[3 * ids.lid_keypoint + 1];
        const double aperture = std::max(lids, kApertureFloor * std::max(middle, 1e-3));
        const double travel = pose.delta[ids.lid_keypoint][1] - pose.delta[kLowerLids][1];
        const double b = clip(travel / aperture, kClosureRange[0], kClosureRange[1]);
        pose.closure[side] = b > 0.0 ? b + (1.0 - b) * smoothstep(kSnap[0], kSnap[1], b) : b;
    }
}

void relax_folds(const Portrait& portrait, Pose& pose) {
    const Model& model = portrait.model;
    pose.folding.assign(static_cast<size_t>(model.face) + 1, 0.0);  // the last is the padding of `triangles_of`
    for (int step = 0; step < kFoldSteps; ++step) {
        for (int i = 0; i < kLandmarks; ++i)
            for (int j = 0; j < 2; ++j) pose.before[i][j] = portrait.at(i)[j] + pose.displacement[i][j];
        bool any = false;
        for (int t = 0; t < model.face; ++t) {
            const int32_t* f = model.triangles + 3 * t;
            const Vec3 &a = pose.before[f[0]], &b = pose.before[f[1]], &c = pose.before[f[2]];
            const double now = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
            const double rest = portrait.rest_area[t], area = std::fabs(rest);
            const double sign = rest > 0.0 ? 1.0 : rest < 0.0 ? -1.0 : 0.0;
            const double lost = (kFoldArea * area - sign * now) * (1.0 / (kFoldSpan[0] * area + kFoldSpan[1]));
            pose.folding[t] = smoothstep(0.0, 1.0, lost);
            any |= lost > 0.0;
        }
        if (!any) return;
        std::copy(pose.displacement, pose.displacement + kLandmarks, pose.before);
        for (int i = 0; i < kLandmarks; ++i) {
            if (!model.may_fold[i]) continue;
            double pull = 0.0;
            for (int k = 0; k < model.corners; ++k) pull = std::max(pull, pose.folding[model.triangles_of[k * kLandmarks + i]]);
            if (pull == 0.0) continue;
            Vec3 mean{0.0, 0.0, 0.0};
            for (int k = 0; k < model.degree; ++k) {
                const size_t n = static_cast<size_t>(i) * model.degree + k;
                const Vec3& other = pose.before[model.neighbours[n]];
                for (int j = 0; j < 3; ++j) mean[j] += model.neighbour_weights[n] * other[j];
            }
            for (int j = 0; j < 3; ++j)
                pose.displacement[i][j] += ((1.0 - kFoldKeep) * pull) * (mean[j] - pose.before[i][j]);
        }
    }
}

// Pushes neighbours along a contour apart, as seen in the portrait's own pose, from its middle to one end.
void keep_apart(const Portrait& portrait, const int32_t* contour, int step, double* seen, const double* seen_at_rest, Vec3* moved) {
    const double across = std::max(portrait.rotation[0], 0.3);
    for (int k = 5; step < 0 ? k > 0 : k < kLip - 1; k += step) {
        const int near = contour[k], far = contour[k + step];
        const double least = kKeepAlong * (seen_at_rest[far] - seen_at_rest[near]);
        const double lacking = least - (seen[far] - seen[near]);
        if (!(lacking * least > 0.0)) continue;
        seen[far] += lacking;
        moved[far][0] += lacking / across;
    }
}

// A lower lip that would grow thicker than kThicken of its own rises as a whole instead.
void raise_thick_lip(const Portrait& portrait, Vec3* moved) {
    const Model& model = portrait.model;
    for (int start = 0, end; start < model.chains_size; start = end + 1) {
        const int32_t* chain = model.chains + start;
        for (end = start; end < model.chains_size && model.chains[end] >= 0; ++end) {}
        const int length = std::min(end - start, static_cast<int>(std::size(kLipRises)));
        if (length < 4 || std::find(model.lower_inner, model.lower_inner + kLip, chain[0]) == model.lower_inner + kLip) continue;
        const double own = portrait.at(chain[3])[1] - portrait.at(chain[0])[1];
        const double grown = std::max(moved[chain[3]][1] - moved[chain[0]][1] - kThicken * own, 0.0);
        for (int i = 0; i < length; ++i) moved[chain[i]][1] -= kLipRises[i] * grown;
    }
}

void part_lips(const Portrait& portrait, Pose& pose) {
    const Model& model = portrait.model;
    Vec3* moved = pose.before;
    for (int i = 0; i < kLandmarks; ++i)
        for (int j = 0; j < 3; ++j) moved[i][j] = portrait.at(i)[j] + pose.displacement[i][j];
    const bool closed = portrait.inner_gap() < kPartedLips;
    for (int k = 1; k < kLip - 1; ++k) {
        const int upper = model.upper_inner[k], lower = model.lower_inner[k];
        const double own = portrait.at(lower)[1] - portrait.at(upper)[1];
        const double least = closed ? std::min(own, 0.012) : 0.005 * std::sin(kPi * k / (kLip - 1));
        const double crossing = std::min(moved[lower][1] - moved[upper][1] - least, 0.0);
        moved[upper][1] += 0.5 * crossing;
        moved[lower][1] -= 0.5 * crossing;
    }
    double seen[kLandmarks], seen_at_rest[kLandmarks];
    const Mat3& r = portrait.rotation;
    for (int i = 0; i < kLandmarks; ++i) {
        const double* rest = portrait.at(i);
        seen[i] = moved[i][0] * r[0] + moved[i][1] * r[3] + moved[i][2] * r[6];
        seen_at_rest[i] = rest[0] * r[0] + rest[1] * r[3] + rest[2] * r[6];
    }
    for (const int32_t* contour : {model.upper_inner, model.lower_inner, model.upper_outer, model.lower_outer})
        for (int step : {-1, 1}) keep_apart(portrait, contour, step, seen, seen_at_rest, moved);
    raise_thick_lip(portrait, moved);
    for (int k = 0; k + 1 < model.chains_size; ++k) {
        const int inner = model.chains[k], outer = model.chains[k + 1];
        if (inner < 0 || outer < 0) continue;
        const double least = kKeep * (portrait.at(outer)[1] - portrait.at(inner)[1]);
        const double lacking = least - (moved[outer][1] - moved[inner][1]);
        if (lacking * least > 0.0) moved[outer][1] += lacking;
    }
    for (int i = 0; i < kLandmarks; ++i)
        for (int j = 0; j < 3; ++j) pose.displacement[i][j] = moved[i][j] - portrait.at(i)[j];
}

void follow_rim(const Portrait& portrait, Pose& pose) {
    std::copy(pose.displacement, pose.displacement + kLandmarks, pose.before);
    for (const Follow& rim : portrait.rim) {
        Vec3 mean{0.0, 0.0, 0.0};
        for (const auto& [landmark, share] : rim.shares)
            for (int j = 0; j < 3; ++j) mean[j] += share * pose.before[landmark][j];
        pose.displacement[rim.landmark] = mean;
    }
}

}  // namespace

bool make_pose(const Portrait& portrait, const float* motion, Pose& pose) {
    for (int i = 0; i < kMotionSize; ++i)
        if (!std::isfinite(motion[i])) return false;
    retarget(portrait, motion, pose);
    clamp_keypoints(portrait.model, pose.delta);
    limit_lips(portrait, pose.delta);
    displace(portrait, pose);
    move_lids(portrait, pose);
    relax_folds(portrait, pose);
    part_lips(portrait, pose);
    follow_rim(portrait, pose);
    bool inside = pose.scale_px > 1e-3 && pose.scale_px < kFarthest;
    for (int i = 0; i < kLandmarks; ++i) {
        for (int j = 0; j < 3; ++j) pose.canonical[i][j] = portrait.at(i)[j] + pose.displacement[i][j];
        for (double x : pose.canonical[i]) inside &= std::fabs(x) < kWidest;
        const Vec3 turned = times(pose.canonical[i].data(), pose.rotation);
        for (int j = 0; j < 3; ++j) {
            pose.vertices[i][j] = pose.scale_px * turned[j] + pose.translation_px[j];
            inside &= std::fabs(pose.vertices[i][j]) < kFarthest;
        }
    }
    for (const Vec3& delta : pose.delta)
        for (double x : delta) inside &= std::fabs(x) < kWidest;
    return inside;
}

}  // namespace ditto
