#include <algorithm>
#include <cmath>

#include "core/layers.h"

namespace ditto {

namespace {

// Channel in ditto/ops/reference/mouth.py
enum Channel {
    kUpperLip, kLowerLip, kUpperSteepness, kLowerSteepness, kShown, kLight, kUpperTeeth, kLowerTeeth = 9, kLowerRoll = 21, kUpperRoll
};
// mouth.py
constexpr double kUsualWidth = 0.34, kFrontal[2] = {0.02, 0.05}, kLipBorder = 0.004, kSeamPx = 1.5;
constexpr double kShadeUpper = 1.0, kShadeLower = 0.74;
// ditto/ops/reference/mouth.py
constexpr double kCornerReach = 0.13, kCornerHalf = 0.036;
constexpr double kFarthest = 100.0;  // fu: of anything in the plane of the mouth; beyond it the kernel's whole numbers run out

constexpr int kColumns = kMouthColumns;
using Columns = std::array<double, kColumns>;
using Lip = std::array<double, kLip>;

// np.interp
double interpolate(double x, const double* xs, const double* ys, int count) {
    if (!(x > xs[0])) return ys[0];
    if (x >= xs[count - 1]) return ys[count - 1];
    const int i = static_cast<int>(std::upper_bound(xs, xs + count, x) - xs) - 1;
    return ys[i] + (ys[i + 1] - ys[i]) / (xs[i + 1] - xs[i]) * (x - xs[i]);
}

// np.gradient
void gradient(const double* y, const double* x, int count, double* slope) {
    for (int i = 1; i + 1 < count; ++i) {
        const double before = x[i] - x[i - 1], after = x[i + 1] - x[i];
        slope[i] = -after / (before * (before + after)) * y[i - 1] + (after - before) / (before * after) * y[i] +
                   before / (after * (before + after)) * y[i + 1];
    }
    slope[0] = (y[1] - y[0]) / (x[1] - x[0]);
    slope[count - 1] = (y[count - 1] - y[count - 2]) / (x[count - 1] - x[count - 2]);
}

// Cubic through (x, y), x rising; flat continuation outside.
void curve(const Lip& x, const Lip& y, const Columns& at, Columns& out) {
    Lip slope;
    gradient(y.data(), x.data(), kLip, slope.data());
    for (int k = 0; k < kColumns; ++k) {
        const int found = static_cast<int>(std::upper_bound(x.begin(), x.end(), at[k]) - x.begin()) - 1;
        const int i = std::min(std::max(found, 0), kLip - 2);
        const double width = x[i + 1] - x[i], t = clip((at[k] - x[i]) / width, 0.0, 1.0), a = y[i], b = y[i + 1];
        out[k] = a + t * t * (3 - 2 * t) * (b - a) + width * t * (1 - t) * ((1 - t) * slope[i] - t * slope[i + 1]);
    }
}

double distance(const double* a, const double* b) {
    double sum = 0.0;
    for (int j = 0; j < 3; ++j) sum += (a[j] - b[j]) * (a[j] - b[j]);
    return std::sqrt(sum);
}

// What depends on the column alone.
struct Still {
    double ends[kColumns], inner[kColumns], corner_light[kColumns];
    Still() {
        for (int i = 0; i < kColumns; ++i) {
            const double aside = std::fabs(-1.0 + 2.0 * i / (kColumns - 1));
            ends[i] = std::min(0.5 * kColumns * (1 - aside) / 2, 1.0);
            inner[i] = smoothstep(0.98, 0.70, aside);
            corner_light[i] = 1 - 0.62 * smoothstep(0.35, 1.0, aside);
        }
    }
};

const Still& still_columns() {
    static const Still still;
    return still;
}

// The gap between the lips as seen in one frame, along evenly spaced x of the head frame's plane through the anchor. `_Opening`
// in mouth.py explains the fields.
struct Opening {
    Columns x, upper, lower, shown, light, pressed;
    double in_plane[4], to_plane[4], origin[2];
    double low[2], high[2];  // px: of the lips
};

// False where the lips are as in the portrait.
bool find_opening(const Portrait& portrait, const Pose& pose, Opening& o) {
    const Model& model = portrait.model;
    const Mouth& mouth = portrait.mouth;
    const int32_t* contours[2] = {model.upper_inner, model.lower_inner};
    double motion = 0.0;
    for (const int32_t* contour : contours)
        for (int k = 0; k < kLip; ++k)
            for (int j = 0; j < 3; ++j)
                motion = std::max(motion, std::fabs(pose.canonical[contour[k]][j] - portrait.at(contour[k])[j]));
    const double gain = smoothstep(0.0015, 0.006, motion);
    const double press = smoothstep(0.0008, 0.0035, pose.delta[kUpperInnerLip][1] - pose.delta[kLowerInnerLip][1]);
    if (std::max(gain, press) <= 0.0) return false;

    const Mat3& r = pose.rotation;
    double *in = o.in_plane, *to = o.to_plane;
    in[0] = pose.scale_px * r[0], in[1] = pose.scale_px * r[1], in[2] = pose.scale_px * r[3], in[3] = pose.scale_px * r[4];
    const double det = in[0] * in[3] - in[1] * in[2];
    to[0] = in[3] / det, to[1] = -in[1] / det, to[2] = -in[2] / det, to[3] = in[0] / det;
    const Vec3 anchor = times(mouth.anchor, r);
    for (int j = 0; j < 2; ++j) {
        o.origin[j] = anchor[j] * pose.scale_px + pose.translation_px[j] - (mouth.anchor[0] * in[j] + mouth.anchor[1] * in[2 + j]);
        o.low[j] = 1e9;
        o.high[j] = -1e9;
    }
    Lip lip_x[2], lip_y[2];
    for (int side = 0; side < 2; ++side)
        for (int k = 0; k < kLip; ++k) {
            const Vec3& p = pose.vertices[contours[side][k]];
            const double dx = p[0] - o.origin[0], dy = p[1] - o.origin[1];
            lip_x[side][k] = dx * to[0] + dy * to[2];
            lip_y[side][k] = dx * to[1] + dy * to[3];
            if (!(std::fabs(lip_x[side][k]) < kFarthest && std::fabs(lip_y[side][k]) < kFarthest)) return false;
            for (int j = 0; j < 2; ++j) {
                o.low[j] = std::min(o.low[j], p[j]);
                o.high[j] = std::max(o.high[j], p[j]);
            }
        }
    const double left = lip_x[0][0], right = lip_x[0][kLip - 1];
    const double frontal = smoothstep(kFrontal[0], kFrontal[1], right - left);
    if (frontal <= 0.0) return false;
    // x must rise along a lip; a strongly turned or puckered one is straightened at its ends.
    for (Lip& x : lip_x) {
        double most = x[0];
        for (int k = 0; k < kLip; ++k) {
            most = std::max(most, x[k]);
            x[k] = most + 1e-4 * k;
        }
    }
    Lip pair_x, pair_sample;
    for (int k = 0; k < kLip; ++k) {
        pair_x[k] = 0.5 * (lip_x[0][k] + lip_x[1][k]);
        pair_sample[k] = (mouth.samples - 1) * k / (kLip - 1.0);
    }
    for (int i = 0; i < kColumns; ++i) o.x[i] = left + i * ((right - left) / (kColumns - 1));
    o.x[kColumns - 1] = right;
    curve(lip_x[0], lip_y[0], o.x, o.upper);
    curve(lip_x[1], lip_y[1], o.x, o.lower);

    const bool parted_at_rest = portrait.inner_gap() > kPartedLips;
    Lip pair_shown;
    for (int k = 0; k < kLip; ++k) {
        const double gap = std::max(pose.canonical[contours[1][k]][1] - pose.canonical[contours[0][k]][1], 0.0);
        const double own = mouth.own_gap[k];
        if (parted_at_rest)
            pair_shown[k] = std::max(smoothstep(0.08, 0.45, std::fabs(gap - own) / (own + 0.012)), smoothstep(0.006, 0.018, motion));
        else
            pair_shown[k] = smoothstep(0.002, 0.009, gap - own);
    }
    const double seam = kSeamPx * (portrait.size / 512.0) / std::hypot(in[2], in[3]);
    for (int i = 0; i < kColumns; ++i) {
        double &upper = o.upper[i], &lower = o.lower[i];
        const double crossing = std::min(lower - upper, 0.0);
        upper += 0.5 * crossing;
        lower -= 0.5 * crossing;
        const double gap = lower - upper, parted = smoothstep(0.003, 0.012, gap);
        const double along = interpolate(o.x[i], pair_x.data(), pair_sample.data(), kLip);
        const int a = std::min(static_cast<int>(along), mouth.samples - 2);
        const auto overlap_of = [&](const double* row) { return row[a] + (row[a + 1] - row[a]) * (along - a); };
        const double overlap = overlap_of(mouth.overlap + mouth.samples);
        upper -= parted * overlap_of(mouth.overlap);
        o.light[i] = smoothstep(0.006, 0.032, gap + 0.6 * parted * overlap);
        o.pressed[i] = 0.0;
        if (parted_at_rest) {
            const double thin = 0.5 * std::max(seam - gap, 0.0) * std::min(gap / 0.001, 1.0);
            upper -= thin;
            lower += thin + parted * (overlap + kLipBorder);
        } else {
            o.pressed[i] = press * overlap;
            lower += std::max(parted, press) * overlap;
        }
        const double shown = interpolate(o.x[i], pair_x.data(), pair_shown.data(), kLip);
        o.shown[i] = std::max(gain * shown, smoothstep(0.001, 0.004, o.pressed[i])) * frontal * still_columns().ends[i];
    }
    return true;
}

// Where one dental arch is in each column: texture column, texture row at y = 0, shade.
struct ArchView {
    int channel;
    double per_unit, row, middle_column;  // of the sprite
    double edge, slope, bow;              // of the teeth: edge + slope x + bow x^2, x from the anchor
    double z, narrow, shift, shade;
};

void place_arch(const Portrait& portrait, const Opening& opening, const ArchView& view, double stretch, double middle,
                const double* parallax, double rounding, float* columns) {
    const Model& model = portrait.model;
    const double* anchor = portrait.mouth.anchor;
    std::vector<double> seen(model.arch), rising(model.arch), slope(model.arch), depth(model.arch);
    double most = 0.0;
    for (int i = 0; i < model.arch; ++i) {
        depth[i] = model.arch_z[i] + (view.z - anchor[2]);
        seen[i] = model.arch_x[i] * stretch * view.narrow + middle + view.shift + depth[i] * parallax[0];
        most = i ? std::max(most, seen[i]) : seen[i];
        rising[i] = most + 1e-6 * i;
    }
    gradient(seen.data(), model.arc, model.arch, slope.data());
    for (int i = 0; i < kColumns; ++i) {
        const double from_anchor = clip(opening.x[i] - anchor[0], -0.16, 0.16);
        const double edge = view.edge + view.slope * from_anchor + view.bow * from_anchor * from_anchor;
        const double arc = interpolate(opening.x[i], rising.data(), model.arc, model.arch);
        const auto along = [&](const double* values) { return interpolate(arc, model.arc, values, model.arch); };
        const double row = edge + along(depth.data()) * parallax[1];
        const double far = smoothstep(0.010, 0.12, along(model.arch_z)), grazing = smoothstep(-0.05, 0.45, along(slope.data()));
        const double corner = (1 - 0.5 * rounding) * still_columns().corner_light[i] *
                              (1 + portrait.mouth.side_light * (-1.0 + 2.0 * i / (kColumns - 1)));
        float* out = columns + kMouthChannels * i + view.channel;
        out[0] = static_cast<float>(arc * view.per_unit + view.middle_column);
        out[1] = static_cast<float>(view.row - row * view.per_unit);
        out[2] = static_cast<float>(view.shade * corner * (1 - 0.35 * far) * (0.25 + 0.75 * grazing));
    }
}

void smooth_corners(const Portrait& portrait, const Pose& pose, const Image& image) {
    for (int side = 0; side < 2; ++side) {
        const int corner = side ? 291 : 61;
        const double sign = side ? 1.0 : -1.0;
        const double amount = smoothstep(0.008, 0.055, sign * (portrait.at(corner)[0] - pose.canonical[corner][0]));
        if (amount <= 0.0) continue;
        const Vec3& at = pose.vertices[corner];
        double out[2] = {pose.vertices[308][0] - pose.vertices[78][0], pose.vertices[308][1] - pose.vertices[78][1]};
        const double length = std::max(std::hypot(out[0], out[1]), 1e-6);
        for (double& x : out) x *= sign / length;
        double low[2] = {1e9, 1e9}, high[2] = {-1e9, -1e9};
        for (double a : {-0.03, kCornerReach})
            for (double b : {-kCornerHalf, kCornerHalf}) {
                const double end[2] = {at[0] + (a * out[0] - b * out[1]) * pose.scale_px, at[1] + (a * out[1] + b * out[0]) * pose.scale_px};
                for (int j = 0; j < 2; ++j) {
                    low[j] = std::min(low[j], end[j]);
                    high[j] = std::max(high[j], end[j]);
                }
            }
        const Box box{std::max(static_cast<int>(std::floor(low[0])) - 1, 0), std::max(static_cast<int>(std::floor(low[1])) - 1, 0),
                      std::min(static_cast<int>(std::ceil(high[0])) + 2, image.width),
                      std::min(static_cast<int>(std::ceil(high[1])) + 2, image.height)};
        const auto f = [](double x) { return static_cast<float>(x); };
        smooth_corner(image, box, {f(at[0]), f(at[1]), f(out[0]), f(out[1]), f(pose.scale_px), f(amount), f(kCornerReach), f(kCornerHalf)});
    }
}

// Every number of a scene is finite and no larger than what a blob may hold, squared.
bool usable(const MouthScene& scene) {
    const float* number = reinterpret_cast<const float*>(&scene);
    bool all = true;
    for (size_t i = 0; i < sizeof scene / sizeof(float); ++i) all &= std::fabs(number[i]) <= kLargest * kLargest;
    return all;
}

}  // namespace

void draw_mouth(const Portrait& portrait, const Pose& pose, std::vector<float>& columns, const Image& image) {
    smooth_corners(portrait, pose, image);
    Opening opening;
    if (!find_opening(portrait, pose, opening)) return;
    const Mouth& mouth = portrait.mouth;
    const Vec3* now = pose.canonical;
    double widest_gap = 0.0;
    for (int i = 0; i < kColumns; ++i) widest_gap = std::max(widest_gap, opening.lower[i] - opening.upper[i]);
    const double width = distance(now[308].data(), now[78].data());
    const double wider = width / mouth.width, usual = std::min(mouth.width, kUsualWidth);
    const double rounding = smoothstep(0.06, 0.30, 1 - width / usual);
    const double widest = std::max({now[14][1] - now[13][1], widest_gap, 0.01});
    const double openness = smoothstep(0.02, 0.12, widest);
    const double chin[2] = {now[152][0] - portrait.at(152)[0], now[152][1] - portrait.at(152)[1]};
    const double visible = 0.006 + 0.026 * clip((wider - 0.90) / 0.30, 0.0, 1.0);
    const double lower_edge = std::max(mouth.lower_edge + chin[1], now[14][1] - visible);
    const double middle = 0.5 * (portrait.at(61)[0] + portrait.at(291)[0]);

    columns.assign(mouth.still, mouth.still + kColumns * kMouthChannels);
    double upper_slope[kColumns], lower_slope[kColumns];
    gradient(opening.upper.data(), opening.x.data(), kColumns, upper_slope);
    gradient(opening.lower.data(), opening.x.data(), kColumns, lower_slope);
    const double px_y = std::hypot(opening.in_plane[2], opening.in_plane[3]);
    for (int i = 0; i < kColumns; ++i) {
        const double gap = opening.lower[i] - opening.upper[i], inner = still_columns().inner[i];
        float* out = columns.data() + kMouthChannels * i;
        out[kUpperLip] = static_cast<float>(opening.upper[i]);
        out[kLowerLip] = static_cast<float>(opening.lower[i]);
        out[kUpperSteepness] = static_cast<float>(px_y / std::hypot(1.0, upper_slope[i]));
        out[kLowerSteepness] = static_cast<float>(px_y / std::hypot(1.0, lower_slope[i]));
        out[kShown] = static_cast<float>(opening.shown[i]);
        out[kLight] = static_cast<float>(opening.light[i]);
        out[kLowerRoll] = static_cast<float>(inner * std::max(std::min(0.016, 0.32 * gap), 1.4 * opening.pressed[i]));
        out[kUpperRoll] = static_cast<float>(inner * std::min(0.008, 0.18 * gap));
    }

    // Depth moves the arches sideways in a turned head; past some 20 degrees fitted depths are not to be trusted.
    const Mat3& r = pose.rotation;
    const double det = r[0] * r[4] - r[1] * r[3];
    const double parallax[2] = {clip((r[6] * r[4] - r[7] * r[3]) / det, -0.32, 0.32),
                                clip((-r[6] * r[1] + r[7] * r[0]) / det, -0.32, 0.32)};
    const double stretch = clip(mouth.width / 0.30, 0.88, 1.12);
    const Teeth& teeth = mouth.teeth;
    place_arch(portrait, opening,
               {kUpperTeeth, mouth.upper_per_unit, mouth.upper_row, 0.5 * (teeth.upper.width - 1), mouth.upper_edge,
                mouth.has_own ? mouth.own_slope : 0.0, mouth.has_own ? mouth.own_bow : 0.0, mouth.arch_z, 1.0, 0.0, kShadeUpper},
               stretch, middle, parallax, rounding, columns.data());
    place_arch(portrait, opening,
               {kLowerTeeth, mouth.lower_per_unit, mouth.lower_row, 0.5 * (teeth.lower.width - 1), lower_edge, 0.0, 0.0,
                mouth.arch_z + 0.018, 0.93, 0.4 * chin[0], kShadeLower},
               stretch, middle, parallax, rounding, columns.data());
    for (const float value : columns)
        if (!(std::fabs(value) <= kLargest * kLargest)) return;

    // A jaw lower than the lips' opening needs means a tongue at the teeth.
    const double raised = smoothstep(0.006, 0.026, chin[1] - 0.45 * std::max(widest - mouth.own_gap[5], 0.0));
    const double tip = lower_edge + 0.010;
    const double back = tip - (0.055 + 0.035 * openness) - raised * std::max(lower_edge - mouth.upper_edge, 0.0);
    const double strength = mouth.has_own ? 0.45 : 1.0;  // the portrait's own teeth have their shadows
    const double edge_px = std::max(1.0, 2.2 * mouth.blur_px);
    const double *to = opening.to_plane, *origin = opening.origin;
    const auto f = [](double x) { return static_cast<float>(x); };
    MouthScene scene{};
    for (int j = 0; j < 2; ++j) {
        scene.x_from_px[j] = f(to[2 * j]);
        scene.y_from_px[j] = f(to[2 * j + 1]);
    }
    scene.x_from_px[2] = f(-(origin[0] * to[0] + origin[1] * to[2]));
    scene.y_from_px[2] = f(-(origin[0] * to[1] + origin[1] * to[3]));
    scene.left = f(opening.x[0]);
    scene.columns_per_unit = f((kColumns - 1) / (opening.x[kColumns - 1] - opening.x[0]));
    scene.edge_px = f(edge_px);
    scene.teeth_per_unit = f(mouth.upper_per_unit);
    for (int j = 0; j < 3; ++j) {
        scene.cavity[j] = f(mouth.cavity[j]);
        scene.tongue[j] = f(mouth.tongue[j]);
        scene.tint[j] = f(mouth.tint[j]);
        scene.own_column[j] = mouth.has_own ? f(mouth.own_from_plane[j]) : 0.0f;
        scene.own_row[j] = mouth.has_own ? f(mouth.own_from_plane[3 + j]) : 0.0f;
    }
    scene.tongue_middle = f(middle);
    scene.tongue_back = f(back);
    scene.tongue_tip = f(tip);
    scene.tongue_half_width = f(0.12 * stretch);
    scene.tongue_light = f(0.55 + 0.45 * openness);
    scene.widest = f(widest);
    scene.own_shade = mouth.has_own ? f(1 - 0.6 * rounding) : 0.0f;
    scene.upper_shadow = f(1 - 0.34 * strength);
    scene.upper_reach = 0.030f;
    scene.lower_shadow = f(1 - 0.16 * strength);
    scene.lower_reach = 0.018f;
    scene.lower_roll_shade = 0.45f;
    scene.upper_roll_shade = 0.55f;
    scene.grain = 0.8f;
    scene.grain_per_unit = f(portrait.scale_px);
    if (!usable(scene)) return;

    double most_overlap = mouth.overlap[0];
    for (int i = 1; i < 2 * mouth.samples; ++i) most_overlap = std::max(most_overlap, mouth.overlap[i]);
    const int margin = 2 + static_cast<int>(std::ceil(clip(edge_px + most_overlap * pose.scale_px, 0.0, kLargest)));
    const Box box{std::max(static_cast<int>(std::floor(opening.low[0])) - margin, 0),
                  std::max(static_cast<int>(std::floor(opening.low[1])) - margin, 0),
                  std::min(static_cast<int>(std::ceil(opening.high[0])) + margin + 1, image.width),
                  std::min(static_cast<int>(std::ceil(opening.high[1])) + margin + 1, image.height)};
    paint_mouth(image, box, columns.data(), kColumns, scene, teeth, mouth.grain);
}

}  // namespace ditto
