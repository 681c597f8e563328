// One eye over a warped frame. The definition is ditto/ops/reference/eyes.py.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/packs.h"
#include "dispatch.h"

namespace ditto {

namespace {

constexpr int kChannels = kEyeChannels, kColumns = kLidColumns;
constexpr int kSkin = 0, kLidMask = 3, kBall = 4, kKeep = 7, kSclera = 8, kGlint = 11, kIris = 12, kIrisAlpha = 15;
enum Column { kLine, kLower, kEdge, kLift, kRise, kRest, kLowMask, kThickness, kCore, kWidth, kLash };
constexpr float kGlintFollows = 0.35f, kShadowDepth = 0.012f, kHanging = 0.75f, kHairZone = 0.034f;

DITTO_PART float clamp01(float x) { return std::min(std::max(x, 0.0f), 1.0f); }

DITTO_PART float smooth(float x) {
    const float u = clamp01(x);
    return u * u * (3.0f - 2.0f * u);
}

DITTO_PART void cubic(float t, float* w) {
    w[0] = -0.5f * t * (1.0f - t) * (1.0f - t);
    w[3] = -0.5f * t * t * (1.0f - t);
    w[1] = 1.0f + t * t * (1.5f * t - 2.5f);
    w[2] = 1.0f - w[0] - w[1] - w[3];
}

struct Taps {
    int row[4], column[4];
    float wy[4], wx[4];
};

DITTO_PART Taps taps(float x, float y, int width, int height) {
    Taps t;
    x = std::min(std::max(x, 0.0f), static_cast<float>(width - 1));
    y = std::min(std::max(y, 0.0f), static_cast<float>(height - 1));
    const int ix = static_cast<int>(x), iy = static_cast<int>(y);
    cubic(x - static_cast<float>(ix), t.wx);
    cubic(y - static_cast<float>(iy), t.wy);
    for (int k = 0; k < 4; ++k) {
        t.column[k] = std::min(std::max(ix + k - 1, 0), width - 1);
        t.row[k] = std::min(std::max(iy + k - 1, 0), height - 1);
    }
    return t;
}

static_assert(kChannels == 16, "a texel is sixteen floats");
DITTO_PART void sample(const Plane& texture, float x, float y, float* out) {
    const Taps t = taps(x, y, texture.width, texture.height);
    Sixteen sum{};
    for (int j = 0; j < 4; ++j) {
        const float* line = texture.data + static_cast<size_t>(t.row[j]) * texture.width * kChannels;
        for (int i = 0; i < 4; ++i)
            sum = sum + (t.wy[j] * t.wx[i]) * load<Sixteen>(line + static_cast<size_t>(t.column[i]) * kChannels);
    }
    store(out, sum);
}

DITTO_PART float sample_one(const Plane& texture, float x, float y, int channel) {
    const Taps t = taps(x, y, texture.width, texture.height);
    float out = 0.0f;
    for (int j = 0; j < 4; ++j) {
        const float* line = texture.data + static_cast<size_t>(t.row[j]) * texture.width * kChannels + channel;
        for (int i = 0; i < 4; ++i) out += t.wy[j] * t.wx[i] * line[static_cast<size_t>(t.column[i]) * kChannels];
    }
    return out;
}

// Bilinear look-up of the lash strip (rows, columns).
DITTO_PART float look_up(const float* strip, int rows, int columns, float row, int c0, float fc) {
    row = std::min(std::max(row, 0.0f), static_cast<float>(rows - 1));
    const int r0 = std::min(static_cast<int>(row), rows - 2);
    const float *top = strip + static_cast<size_t>(r0) * columns + c0, *bottom = top + columns;
    const float first = top[0] + fc * (top[1] - top[0]), second = bottom[0] + fc * (bottom[1] - bottom[0]);
    return first + (row - static_cast<float>(r0)) * (second - first);
}

// What the frame showed before, around the box: (height, width, 4), the last channel empty.
struct Before {
    std::vector<float> pixels;
    int x0, y0, width, height, frame_width, frame_height;

    DITTO_PART void sample(float x, float y, float* out) const {
        const Taps t = taps(x, y, frame_width, frame_height);
        size_t column[4];
        for (int i = 0; i < 4; ++i) column[i] = 4 * static_cast<size_t>(std::min(std::max(t.column[i] - x0, 0), width - 1));
        Four sum{};
        for (int j = 0; j < 4; ++j) {
            const int row = std::min(std::max(t.row[j] - y0, 0), height - 1);
            const float* line = pixels.data() + 4 * static_cast<size_t>(row) * width;
            for (int i = 0; i < 4; ++i) sum = sum + (t.wy[j] * t.wx[i]) * load<Four>(line + column[i]);
        }
        float all[4];
        store(all, sum);
        std::copy_n(all, 3, out);
    }
};

DITTO_MULTIVERSION
void draw_rows(uint8_t* image, int width, const Before& before, const Box& box, const Plane& texture,
               const float* curves, int columns, const float* strip, int strip_rows, const EyeView& v) {
    const float to_column = static_cast<float>((columns - 1) / (2.0 * v.xi_limit));
    const float to_row = static_cast<float>(strip_rows - 1) / v.hair;
    for (int y = box.top; y < box.bottom; ++y) {
        const float py = (static_cast<float>(y) - v.centre[1]) / v.reach;
        for (int x = box.left; x < box.right; ++x) {
            const float px = (static_cast<float>(x) - v.centre[0]) / v.reach;
            const float *a = v.to_source, *b = v.to_source + 6, *m = v.to_eye;
            const float sx = a[0] + a[1] * px + a[2] * py + a[3] * px * px + a[4] * px * py + a[5] * py * py;
            const float sy = b[0] + b[1] * px + b[2] * py + b[3] * px * px + b[4] * px * py + b[5] * py * py;
            const float xi = m[0] * sx + m[1] * sy + m[2], eta = m[3] * sx + m[4] * sy + m[5];
            if (!(sx >= 0.0f && sy >= 0.0f && sx <= static_cast<float>(texture.width - 1) &&
                  sy <= static_cast<float>(texture.height - 1) && std::fabs(xi) < v.xi_limit))
                continue;
            float tex[kChannels];
            sample(texture, sx, sy, tex);
            const float keep = clamp01(tex[kKeep]) * v.gain;
            if (keep <= 0.0f) continue;

            const float column = std::min(std::max((xi + v.xi_limit) * to_column, 0.0f), static_cast<float>(columns - 1));
            const int c0 = std::min(static_cast<int>(column), columns - 2);
            const float fc = column - static_cast<float>(c0);
            float c[kColumns];
            for (int k = 0; k < kColumns; ++k) {
                const float left = curves[c0 * kColumns + k];
                c[k] = left + fc * (curves[(c0 + 1) * kColumns + k] - left);
            }
            const float below_line = clamp01(0.5f + (eta - c[kLine]) * v.sharpness);
            const float below_lower = clamp01(0.5f + (eta - c[kLower]) * v.sharpness);

            uint8_t* pixel = image + 3 * (static_cast<size_t>(y) * width + x);
            const float own[3] = {static_cast<float>(pixel[0]), static_cast<float>(pixel[1]), static_cast<float>(pixel[2])};
            float skin[3] = {own[0], own[1], own[2]};
            const float up = c[kLine] - eta, down = eta - c[kLower];
            const float covered = std::min(below_line, below_lower), open = std::max(below_line - below_lower, 0.0f);
            if (open < 1.0f) {
                // With the lower lid below the middle of the opening, where the skin is hidden, or, with the lids shut,
                // on the line where they meet.
                const float rise = c[kRise] * (1.0f - smooth(down / v.reach_down));
                const float lift = c[kLift] * (1.0f - smooth(up / v.reach_up));
                const float shift = lift + (rise - lift) * clamp01(0.5f + 0.5f * (down - up) * v.sharpness);
                if (std::fabs(shift) > 1e-6f)
                    before.sample(static_cast<float>(x) + shift * v.down[0], static_cast<float>(y) + shift * v.down[1],
                                  skin);
            }
            const float mask = clamp01(tex[kLidMask]);
            const float above_edge = eta - c[kEdge];
            const float hairy = smooth((above_edge + kHairZone) / (0.3f * kHairZone));
            float gone = v.crease + hairy * (v.bared - v.crease);
            gone += (1.0f - gone) * smooth(above_edge / 0.004f + 0.5f);
            const float lid_weight = mask * gone * v.lid;
            const float low_weight = clamp01(mask * c[kLowMask]) * v.shut;

            float ball[3] = {tex[kBall], tex[kBall + 1], tex[kBall + 2]};
            if (open > 0.0f) {
                if (v.layered > 0.0f) {
                    float turned[kChannels];
                    sample(texture, sx - v.gaze[0], sy - v.gaze[1], turned);
                    const float alpha = clamp01(turned[kIrisAlpha]);
                    const float glint = alpha > 0.0f ? sample_one(texture, sx - v.gaze[0] * kGlintFollows,
                                                                  sy - v.gaze[1] * kGlintFollows, kGlint)
                                                     : 0.0f;
                    for (int k = 0; k < 3; ++k) {
                        const float eye = tex[kSclera + k] * (1.0f - alpha) + (turned[kIris + k] + glint) * alpha;
                        ball[k] += (eye - ball[k]) * v.layered;
                    }
                }
                if (c[kLine] > c[kRest]) {  // a higher lid throws no more shade than at rest
                    const float now = std::exp(-std::max(eta - c[kLine], 0.0f) / kShadowDepth);
                    const float rest = std::exp(-std::max(eta - c[kRest], 0.0f) / kShadowDepth);
                    for (float& value : ball) value *= 1.0f - v.shadow * (now - rest);
                }
            }

            const float d = eta - c[kLine], thick = c[kThickness];
            float opacity = look_up(strip, strip_rows, columns, std::max(-d, 0.0f) * to_row, c0, fc);
            const float soft = std::max(0.7f * c[kWidth], 1.0f / v.sharpness);
            opacity = std::max(opacity * (1.0f - v.turn), c[kCore] * smooth((d + 1.25f * c[kWidth]) / soft) * v.crisp);
            opacity *= clamp01(0.8f - d * v.sharpness * 0.7f);
            const float hangs = clamp01(0.5f + d * v.sharpness) * kHanging * v.turn;
            if (hangs > 0.0f)
                opacity = std::max(
                    opacity, look_up(strip, strip_rows, columns, (thick + std::max(d, 0.0f)) * to_row, c0, fc) * hangs);
            opacity = clamp01(opacity) * v.lid;
            for (int k = 0; k < 3; ++k) {
                const float upper = skin[k] + (tex[kSkin + k] - skin[k]) * lid_weight;
                const float lower = skin[k] + (tex[kSkin + k] - skin[k]) * low_weight;
                const float out = upper + (ball[k] - upper) * open + (lower - upper) * covered;
                const float drawn = out + (c[kLash + k] - out) * opacity;
                const float value = own[k] + (drawn - own[k]) * keep;
                pixel[k] = static_cast<uint8_t>(std::min(std::max(value, 0.0f), 255.0f) + 0.5f);
            }
        }
    }
}

}  // namespace

void draw_eye(const Image& image, const Box& box, const Plane& texture, const float* curves, const Plane& strip,
              const EyeView& v) {
    const int height = image.height, width = image.width, columns = strip.width;
    const int left = box.left, top = box.top, right = box.right, bottom = box.bottom;
    float most = 0.0f;
    for (int i = 0; i < columns; ++i)
        most = std::max({most, std::fabs(curves[i * kColumns + kLift]), std::fabs(curves[i * kColumns + kRise])});
    const float reach = most * std::max(std::fabs(v.down[0]), std::fabs(v.down[1]));
    const int margin = static_cast<int>(std::min(reach, static_cast<float>(width + height))) + 4;
    Before before;
    before.x0 = std::max(left - margin, 0);
    before.y0 = std::max(top - margin, 0);
    before.width = std::min(right + margin, width) - before.x0;
    before.height = std::min(bottom + margin, height) - before.y0;
    before.frame_width = width;
    before.frame_height = height;
    before.pixels.resize(static_cast<size_t>(4) * before.width * before.height);
    for (int y = 0; y < before.height; ++y) {
        const uint8_t* row = image.pixels + 3 * (static_cast<size_t>(before.y0 + y) * width + before.x0);
        float* to = before.pixels.data() + static_cast<size_t>(4) * before.width * y;
        for (int x = 0; x < before.width; ++x)
            for (int c = 0; c < 3; ++c) to[4 * x + c] = row[3 * x + c];
    }
    draw_rows(image.pixels, width, before, box, texture, curves, columns, strip.data, strip.height, v);
}

}  // namespace ditto
