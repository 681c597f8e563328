#include "core/portrait.h"

#include <cstring>

namespace ditto {

namespace {

constexpr double kParts = 1e6;  // largest of a size in px, a scale or a share: far more than any portrait has
constexpr double kHead = 100.0;  // fu: farther from the middle of a head than any part of it
constexpr double kTemplateAperture = 0.074;  // TEMPLATE_APERTURE in ditto/motion/motion.py
constexpr int kUpperLids[2] = {13, 16}, kLowerLids = 18;

Plane plane(const Array<float>& a) { return {a.data, a.size[0], a.size[1]}; }

bool rising(const double* values, int count) {
    for (int i = 1; i < count; ++i)
        if (!(values[i] > values[i - 1])) return false;
    return true;
}

double twice_area(const double* a, const double* b, const double* c) {
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
}

}  // namespace

void Portrait::take_model() {
    Model& m = model;
    m.basis = blob.f32("model.basis", kBasisSize, 3 * kLandmarks).data;
    m.components = blob.f64("model.components", kBasisSize, kBasisSize).data;
    m.limits = blob.f64("model.limits", kBasisSize).data;
    m.low = blob.f64("model.low", kKeypoints, 3).data;
    m.high = blob.f64("model.high", kKeypoints, 3).data;
    m.basis_keypoints = blob.i32("model.keypoints", 0, kKeypoints - 1, kBasisKeypoints).data;
    const Array<int32_t> triangles = blob.i32("mesh.triangles", 0, kLandmarks - 1, kAny, 3);
    m.triangles = triangles.data;
    m.inner = triangles.size[0];
    m.face = blob.whole("mesh.face", 1, m.inner);
    m.lift = blob.f64("mesh.lift", m.inner).data;
    m.front = blob.f64("mesh.front", m.inner).data;
    const Array<int32_t> neighbours = blob.i32("mesh.neighbours", 0, kLandmarks - 1, kLandmarks, kAny);
    m.neighbours = neighbours.data;
    m.degree = neighbours.size[1];
    m.neighbour_weights = blob.f64("mesh.neighbour_weights", kLandmarks, m.degree).data;
    const Array<int32_t> triangles_of = blob.i32("mesh.triangles_of", 0, m.face, kAny, kLandmarks);
    m.triangles_of = triangles_of.data;
    m.corners = triangles_of.size[0];
    m.may_fold = blob.u8("mesh.may_fold", kLandmarks).data;
    const auto lip = [this](const char* name) { return blob.i32(name, 0, kLandmarks - 1, kLip).data; };
    m.upper_inner = lip("lips.upper_inner");
    m.lower_inner = lip("lips.lower_inner");
    m.upper_outer = lip("lips.upper_outer");
    m.lower_outer = lip("lips.lower_outer");
    const Array<int32_t> chains = blob.i32("lips.chains", -1, kLandmarks - 1, kAny);
    m.chains = chains.data;
    m.chains_size = chains.size[0];
    const Array<double> arc = blob.f64("arch.arc", kAny);
    m.arc = arc.data;
    m.arch = arc.size[0];
    m.arch_x = blob.f64("arch.x", m.arch).data;
    m.arch_z = blob.f64("arch.z", m.arch).data;
    if (!blob.failed() && (m.arch < 2 || !rising(m.arc, m.arch)))
        blob.fail("expected a rising array arch.arc of two or more, got others; the blob is damaged");
}

void Portrait::take_geometry() {
    landmarks = blob.f64("face.landmarks", kLandmarks, 3).data;
    canonical = blob.f64("face.canonical", kLandmarks, 3).data;
    keypoints = blob.f64("face.keypoints", kKeypoints, 3).data;
    scale_px = blob.number("face.scale_px", 1e-3, kParts);
    model_scale = blob.number("pose.scale", 1e-6, kParts);
    const auto vec = [this](const char* name, Vec3& to) {
        if (const double* from = blob.f64(name, 3).data) std::memcpy(to.data(), from, sizeof to);
    };
    const auto mat = [this](const char* name, Mat3& to) {
        if (const double* from = blob.f64(name, 3, 3).data) std::memcpy(to.data(), from, sizeof to);
    };
    vec("face.translation_px", translation_px);
    mat("face.rotation", rotation);
    vec("pose.translation", translation);
    mat("pose.rotation", model_rotation);
    const double* expression = blob.f64("pose.expression", kKeypoints, 3).data;
    const double* neutral = blob.f64("pose.keypoints", kKeypoints, 3).data;
    hidden = blob.u8("rim.hidden", model.face).data;
    const Array<int32_t> ids = blob.i32("rim.ids", 0, kLandmarks - 1, kAny);
    const double* follow = blob.f64("rim.follow", ids.size[0], kLandmarks).data;
    if (blob.failed()) return;
    for (int k = 0; k < kKeypoints; ++k)
        for (int j = 0; j < 3; ++j) {  // expression @ rotation.T
            const double *e = expression + 3 * k, *r = model_rotation.data() + 3 * j;
            rest[k][j] = e[0] * r[0] + e[1] * r[1] + e[2] * r[2];
        }
    for (int side = 0; side < 2; ++side)
        lid_scale[side] = (neutral[3 * kLowerLids + 1] - neutral[3 * kUpperLids[side] + 1]) / kTemplateAperture;
    for (int t = 0; t < model.face; ++t) {
        const int32_t* f = model.triangles + 3 * t;
        rest_area.push_back(twice_area(at(f[0]), at(f[1]), at(f[2])));
    }
    for (int i = 0; i < ids.size[0]; ++i) {
        Follow one{ids.data[i], {}};
        for (int k = 0; k < kLandmarks; ++k)
            if (const double share = follow[static_cast<size_t>(i) * kLandmarks + k]; share != 0.0)
                one.shares.emplace_back(k, share);
        rim.push_back(std::move(one));
    }
}

void Portrait::take_surround() {
    const Array<uint8_t> pixels = blob.u8("texture", kAny, kAny, 4);
    size = pixels.size[0];
    texture = pixels.data;
    if (!blob.failed() && (size < 16 || size > 8192 || pixels.size[1] != size)) {
        blob.fail("expected a square texture of 16 to 8192 pixels, got " + std::to_string(pixels.size[1]) + " x " + std::to_string(size) + "; the blob is damaged");
        return;
    }
    plate = blob.u8("plate", size, size, 3).data;
    Surround& s = surround;
    const Array<double> points = blob.f64("surround.points", kAny, 2);
    s.points = points.data;
    s.count = points.size[0];
    s.canonical = blob.f64("surround.canonical", s.count, 3).data;
    s.head_weight = blob.f64("surround.head_weight", s.count, 2, 2).data;
    s.body_weight = blob.f64("surround.body_weight", s.count, 2).data;
    s.shares = blob.f64("surround.shares", s.count, 6).data;
    s.neighbours = blob.i32("surround.neighbours", 0, kLandmarks - 1, s.count, 6).data;
    const Array<int32_t> outline = blob.i32("surround.outline", 0, kLandmarks - 1, kAny);
    s.outline = outline.data;
    s.outline_count = outline.size[0];
    const Array<int32_t> triangles = blob.i32("surround.triangles", 0, kLandmarks + s.count - 1, kAny, 3);
    s.triangles = triangles.data;
    s.triangle_count = triangles.size[0];
    source = blob.f32("source", kLandmarks + s.count, 2).data;
    if (!blob.failed() && s.outline_count > s.count)
        blob.fail("expected no more points of the outline than points around the face, got more; the blob is damaged");
}

void Portrait::take_eye(const std::string& side, int index) {
    Eye& eye = eyes[index];
    const auto name = [&side](const char* part) { return side + "." + part; };
    const auto numbers = [&](const char* part, int a, int b = 1) { return blob.f64(name(part).c_str(), a, b).data; };
    const auto contour = [&](const char* part) { return blob.i32(name(part).c_str(), 0, kLandmarks - 1, 9).data; };
    eye.ids.upper = contour("upper_ids");
    eye.ids.lower = contour("lower_ids");
    eye.ids.ring = contour("ring_ids");
    eye.ids.iris = blob.whole(name("iris").c_str(), 0, kLandmarks - 5);
    eye.ids.lid_keypoint = blob.whole(name("lid_keypoint").c_str(), 0, kKeypoints - 1);
    eye.ids.iris_keypoint = blob.whole(name("iris_keypoint").c_str(), 0, kKeypoints - 1);
    const Array<int32_t> anchors = blob.i32(name("anchors").c_str(), 0, kLandmarks - 1, kAny);
    eye.anchors = anchors.data;
    eye.anchor_count = anchors.size[0];
    eye.anchor_weights = numbers("anchor_weights", eye.anchor_count);
    eye.frame_width = blob.number(name("frame_width").c_str(), 0.0, kParts);
    eye.has_iris = blob.number(name("has_iris").c_str(), 0.0, 1.0);
    eye.soft = blob.number(name("soft").c_str(), 0.0, kParts);
    eye.height = blob.number(name("height").c_str(), -kParts, kParts);
    eye.matrix = numbers("matrix", 2, 3);
    eye.origin = numbers("origin", 2);
    const Array<float> still = blob.f32(name("curves").c_str(), kAny, kLidColumns);
    eye.still = still.data;
    const int columns = still.size[0];
    eye.gap = numbers("gap", columns);
    eye.profile = numbers("profile", columns);
    eye.travel = numbers("travel", columns);
    eye.upper = numbers("upper", columns);
    eye.lower = numbers("lower", columns);
    eye.texture = plane(blob.f32(name("texture").c_str(), kAny, kAny, kEyeChannels));
    eye.strip = plane(blob.f32(name("strip").c_str(), kAny, columns));
    if (!blob.failed() && (columns < 2 || eye.anchor_count < 1 || eye.strip.height < 2 || eye.texture.height < 2 ||
                           eye.texture.width < 2))
        blob.fail("expected arrays of an eye with two or more rows and columns, got fewer; the blob is damaged");
}

void Portrait::take_mouth() {
    Mouth& m = mouth;
    m.anchor = blob.f64("mouth.anchor", 3).data;
    m.own_gap = blob.f64("mouth.own_gap", kLip).data;
    const Array<double> overlap = blob.f64("mouth.overlap", 2, kAny);
    m.overlap = overlap.data;
    m.samples = overlap.size[1];
    m.width = blob.number("mouth.width", 1e-6, kParts);
    m.upper_edge = blob.number("mouth.upper_edge", -kHead, kHead);
    m.lower_edge = blob.number("mouth.lower_edge", -kHead, kHead);
    m.arch_z = blob.number("mouth.arch_z", -kHead, kHead);
    m.blur_px = blob.number("mouth.blur_px", 0.0, 1e3);
    m.has_own = blob.whole("mouth.has_own", 0, 1) != 0;
    m.own_slope = blob.number("mouth.own_slope", -kParts, kParts);
    m.own_bow = blob.number("mouth.own_bow", -kParts, kParts);
    m.own_from_plane = blob.f64("mouth.own_from_plane", 2, 3).data;
    m.upper_per_unit = blob.number("mouth.upper_per_unit", 0.0, kParts);
    m.upper_row = blob.number("mouth.upper_row", -kParts, kParts);
    m.lower_per_unit = blob.number("mouth.lower_per_unit", 0.0, kParts);
    m.lower_row = blob.number("mouth.lower_row", -kParts, kParts);
    m.side_light = blob.number("mouth.side_light", -1.0, 1.0);
    m.cavity = blob.f64("mouth.cavity", 3).data;
    m.tongue = blob.f64("mouth.tongue", 3).data;
    m.tint = blob.f64("mouth.tint", 3).data;
    m.teeth.upper = plane(blob.f32("mouth.upper", kAny, kAny, 4));
    m.teeth.lower = plane(blob.f32("mouth.lower", kAny, kAny, 4));
    m.teeth.own = plane(blob.f32("mouth.own", kAny, kAny, 4));
    m.grain = plane(blob.f32("mouth.grain", kAny, kAny));
    m.still = blob.f32("mouth.columns", kMouthColumns, kMouthChannels).data;
    if (!blob.failed() && (m.samples < 2 || m.grain.height < 1 || m.grain.height != m.grain.width))
        blob.fail("expected two or more samples across the mouth and a square grain, got others; the blob is damaged");
    for (int k = 0; !blob.failed() && k < kLip; ++k)
        if (m.own_gap[k] < 0.0) blob.fail("expected no gap below 0 in mouth.own_gap, got one; the blob is damaged");
}

void Portrait::take_creases() {
    for (int k = 0; k < kCreases && !blob.failed(); ++k) {
        const std::string name = "crease" + std::to_string(k);
        Crease& c = creases[k];
        const Array<uint8_t> relief = blob.u8((name + ".relief").c_str(), kAny, kAny);
        c.relief = relief.data;
        c.height = relief.size[0];
        c.width = relief.size[1];
        c.corner = blob.i32((name + ".corner").c_str(), 0, size - 1, 2).data;
        const Array<int32_t> landmarks = blob.i32((name + ".landmarks").c_str(), 0, kLandmarks - 1, kAny);
        c.landmarks = landmarks.data;
        c.count = landmarks.size[0];
        if (!blob.failed() && (c.count < 1 || c.height < 2 || c.width < 2 || c.corner[0] + c.width > size || c.corner[1] + c.height > size))
            blob.fail("expected the array " + name + ".relief to be 2 x 2 or larger, to lie in the crop and to have landmarks, got another; the blob is damaged");
    }
    crease_tint = blob.f64("creases.tint", 3).data;
}

void Portrait::take_picture() {
    has_picture = blob.has("picture");
    if (!has_picture) return;
    const Array<uint8_t> picture = blob.u8("picture", kAny, kAny, 3);
    Paste& p = paste;
    p.channels = 3;
    p.picture = picture.data;
    p.height = picture.size[0];
    p.width = picture.size[1];
    p.side = size;
    p.source = blob.u8("crop", size, size, 3).data;
    p.ramp = blob.f32("paste.ramp", 2, size).data;
    p.to_crop = blob.f64("paste.to_crop", 2, 3).data;
    if (!blob.failed() && (p.height < 1 || p.width < 1 || p.height > 32768 || p.width > 32768)) {
        blob.fail("expected a picture of up to 32768 x 32768 pixels, got others; the blob is damaged");
        return;
    }
    p.x = blob.whole("paste.x", 0, p.width - 1);
    p.y = blob.whole("paste.y", 0, p.height - 1);
    p.columns = blob.whole("paste.columns", 1, p.width - p.x);
    p.rows = blob.whole("paste.rows", 1, p.height - p.y);
    p.reduce = blob.whole("paste.reduce", 1, size / 4);
    for (int i = 0; !blob.failed() && i < 2 * size; ++i)
        if (!(p.ramp[i] >= 0.0f && p.ramp[i] <= 1.0f)) blob.fail("expected numbers from 0 to 1 in paste.ramp, got others; the blob is damaged");
    p.detail = blob.has("paste.detail") ? blob.i16("paste.detail", p.rows, p.columns, 3).data : nullptr;
}

std::unique_ptr<Portrait> Portrait::open(const void* bytes, size_t size, std::string* error) {
    auto portrait = std::make_unique<Portrait>(bytes, size);
    Portrait& p = *portrait;
    const auto steps = {&Portrait::take_model, &Portrait::take_geometry, &Portrait::take_surround};
    for (const auto step : steps)
        if (!p.blob.failed()) (p.*step)();
    if (!p.blob.failed()) p.take_eye("right", 0);
    if (!p.blob.failed()) p.take_eye("left", 1);
    if (!p.blob.failed()) p.take_mouth();
    if (!p.blob.failed()) p.take_creases();
    if (!p.blob.failed()) p.take_picture();
    if (!p.blob.failed()) return portrait;
    *error = p.blob.error();
    return nullptr;
}

}  // namespace ditto
