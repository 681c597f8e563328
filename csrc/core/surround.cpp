#include <algorithm>
#include <cmath>

#include "core/layers.h"
#include "dispatch.h"

namespace ditto {

namespace {

constexpr double kBodyFollows = 0.13;                                      // BODY_FOLLOWS in surround.py
constexpr double kNeckAnchor[3] = {0.0, 0.95, 0.05};                       // NECK_ANCHOR in face_mesh.py
constexpr double kGatePx[2] = {0.3 / 512, 2.5 / 512}, kGateSigma = 6.0 / 512;  // of the crop's side, in background.py
constexpr int kGateCells = 128;

// out[x] += weight * values[x]
DITTO_MULTIVERSION
void add_weighted(const float* values, float weight, int count, float* out) {
    for (int x = 0; x < count; ++x) out[x] += weight * values[x];
}

}  // namespace

void move_surround(const Portrait& portrait, const Pose& pose, float* moved) {
    const Surround& s = portrait.surround;
    const Vec3 now = times(kNeckAnchor, pose.rotation), before = times(kNeckAnchor, portrait.rotation);
    double neck[2];
    for (int j = 0; j < 2; ++j)
        neck[j] = pose.scale_px * now[j] + pose.translation_px[j] - (portrait.scale_px * before[j] + portrait.translation_px[j]);
    for (int p = 0; p < s.outline_count; ++p) {  // in the middle of an edge of the outline
        const Vec3 &a = pose.vertices[s.outline[p]], &b = pose.vertices[s.outline[(p + 1) % s.outline_count]];
        for (int j = 0; j < 2; ++j) moved[2 * p + j] = static_cast<float>(0.5 * (a[j] + b[j]));
    }
    for (int p = s.outline_count; p < s.count; ++p) {
        double at[3] = {s.canonical[3 * p], s.canonical[3 * p + 1], s.canonical[3 * p + 2]};
        for (int k = 0; k < 6; ++k) {
            const int n = s.neighbours[6 * p + k];
            const double share = s.shares[6 * p + k];
            for (int j = 0; j < 3; ++j) at[j] += share * (pose.canonical[n][j] - portrait.at(n)[j]);
        }
        const Vec3 turned = times(at, pose.rotation);
        for (int j = 0; j < 2; ++j) {
            const double rest = s.points[2 * p + j], shift = pose.scale_px * turned[j] + pose.translation_px[j] - rest;
            const double* weight = s.head_weight + 4 * p + 2 * j;  // to the lower and the higher side
            const double follows = kBodyFollows * s.body_weight[2 * p + j] * neck[j];
            moved[2 * p + j] = static_cast<float>(rest + weight[shift > 0.0 ? 1 : 0] * shift + follows);
        }
    }
}

void PaintersOrder::sort(const Portrait& portrait, const Pose& pose, int* triangles) {
    const Model& model = portrait.model;
    depth_.resize(model.inner);
    order_.resize(model.inner);
    for (int t = 0; t < model.inner; ++t) {
        const int32_t* f = model.triangles + 3 * t;
        const Vec3 &a = pose.vertices[f[0]], &b = pose.vertices[f[1]], &c = pose.vertices[f[2]];
        const double area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
        depth_[t] = (a[2] + b[2] + c[2]) / 3.0 - model.lift[t] * portrait.scale_px;
        if (area * model.front[t] < 0.0) depth_[t] += portrait.scale_px;
        if (t < model.face && portrait.hidden[t]) depth_[t] += portrait.scale_px;
        order_[t] = t;
    }
    std::sort(order_.begin(), order_.end(),
              [this](int a, int b) { return depth_[a] != depth_[b] ? depth_[a] > depth_[b] : a < b; });
    for (int t : order_) triangles = std::copy_n(model.triangles + 3 * t, 3, triangles);
}

Plane PlateGate::make(const float* map, int size) {
    const int step = std::max(1, size / kGateCells), first = (step - 1) / 2, n = (size - first + step - 1) / step;
    if (size_ != size) {  // as OpenCV makes a Gaussian of float32
        size_ = size;
        const double sigma = kGateSigma * size / step;
        kernel_.resize(static_cast<size_t>(std::lround(sigma * 8 + 1)) | 1);
        const int reach = static_cast<int>(kernel_.size() / 2);
        double total = 0.0;
        for (int i = -reach; i <= reach; ++i) total += std::exp(-0.5 * i * i / (sigma * sigma));
        for (int i = -reach; i <= reach; ++i)
            kernel_[i + reach] = static_cast<float>(std::exp(-0.5 * i * i / (sigma * sigma)) / total);
    }
    const int taps = static_cast<int>(kernel_.size()), reach = taps / 2;
    const auto mirrored = [n](int i) {
        while (i < 0 || i >= n) i = i < 0 ? -i : 2 * n - 2 - i;
        return i;
    };
    moved_.resize(static_cast<size_t>(n) * n);
    line_.assign(moved_.size(), 0.0f);
    gate_.assign(moved_.size(), 0.0f);
    wide_.resize(static_cast<size_t>(n) + 2 * reach);
    for (int y = 0; y < n; ++y)
        for (int x = 0; x < n; ++x) {
            const int at_x = first + x * step, at_y = first + y * step;
            const size_t pixel = static_cast<size_t>(at_y) * size + at_x;
            const float dx = map[pixel] - static_cast<float>(at_x);
            const float dy = map[static_cast<size_t>(size) * size + pixel] - static_cast<float>(at_y);
            moved_[static_cast<size_t>(y) * n + x] = std::sqrt(dx * dx + dy * dy);
        }
    for (int y = 0; y < n; ++y) {
        const float* row = moved_.data() + static_cast<size_t>(y) * n;
        for (int x = -reach; x < n + reach; ++x) wide_[x + reach] = row[mirrored(x)];
        float* out = line_.data() + static_cast<size_t>(y) * n;
        for (int i = 0; i < taps; ++i) add_weighted(wide_.data() + i, kernel_[i], n, out);
    }
    for (int y = 0; y < n; ++y) {
        float* out = gate_.data() + static_cast<size_t>(y) * n;
        for (int i = 0; i < taps; ++i)
            add_weighted(line_.data() + static_cast<size_t>(mirrored(y + i - reach)) * n, kernel_[i], n, out);
        for (int x = 0; x < n; ++x)
            out[x] = static_cast<float>(smoothstep(kGatePx[0] * size, kGatePx[1] * size, out[x]));
    }
    return {gate_.data(), n, n};
}

}  // namespace ditto
