// Piecewise affine warp: triangles in painter's order -> backward map -> bicubic sample of an RGBA texture.
//
// Where the map breaks off (the silhouette of the face over the hair) or shrinks the texture, a pixel is put together
// of what the triangles at its 16 samples show, so edges are smooth and move smoothly; everywhere else it is one bicubic
// sample. A pixel that does not move is copied exactly. The definition is ditto/ops/reference/warp.py.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/lanes128.h"
#include "dispatch.h"
#if DITTO_HAS_AVX2
#include <immintrin.h>
#endif

namespace ditto {

namespace {

constexpr float kInside = 1e-3f;   // a pixel this far (barycentric) outside a triangle still belongs to it: no cracks
constexpr float kDegenerate = 1e-6f;
// From where, and from where on in full, a pixel is put together of samples:
constexpr float kJump = 2.0f, kFullJump = 3.0f;     // texture pixels per pixel
constexpr float kBreak = 0.2f, kFullBreak = 0.45f;  // change of that from one pixel to the next: a surface ends here
constexpr int kSamples = 16;       // Direct3D's standard pattern: no two share a row or a column
constexpr int kPattern[kSamples][2] = {{1, 1}, {-1, -3}, {-3, 2}, {4, -1}, {-5, -2}, {2, 5},  {5, 3},  {3, -5},
                                       {-2, 6}, {0, -7}, {-4, -6}, {-6, 4}, {-8, 0}, {7, -4}, {6, 7}, {-7, -8}};
constexpr int kSteps = 256;        // sampling positions are rounded to 1/256 pixel
constexpr float kCubic = -0.75f;   // bicubic sharpness, as OpenCV's

inline float ramp(float low, float high, float x) { return std::min(std::max((x - low) / (high - low), 0.0f), 1.0f); }

Affine affine_of(const int* t, const float* destination, const float* source) {
    const float *a = destination + 2 * t[0], *b = destination + 2 * t[1], *c = destination + 2 * t[2];
    const float *p = source + 2 * t[0], *q = source + 2 * t[1], *r = source + 2 * t[2];
    Affine m;
    const float det = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1]);
    m.valid = std::fabs(det) >= kDegenerate;  // less covers a millionth of a pixel: no share of any
    if (!m.valid) return m;
    const float inverse = 1.0f / det;
    m.ux = (c[1] - a[1]) * inverse;
    m.uy = -(c[0] - a[0]) * inverse;
    m.vx = -(b[1] - a[1]) * inverse;
    m.vy = (b[0] - a[0]) * inverse;
    m.ax = a[0];
    m.ay = a[1];
    m.s0 = p[0];
    m.t0 = p[1];
    m.sx = (q[0] - p[0]) * m.ux + (r[0] - p[0]) * m.vx;
    m.sy = (q[0] - p[0]) * m.uy + (r[0] - p[0]) * m.vy;
    m.tx = (q[1] - p[1]) * m.ux + (r[1] - p[1]) * m.vx;
    m.ty = (q[1] - p[1]) * m.uy + (r[1] - p[1]) * m.vy;
    m.xmin = std::min(a[0], std::min(b[0], c[0]));
    m.xmax = std::max(a[0], std::max(b[0], c[0]));
    m.ymin = std::min(a[1], std::min(b[1], c[1]));
    m.ymax = std::max(a[1], std::max(b[1], c[1]));
    const float shrinks = std::max({std::fabs(m.sx), std::fabs(m.sy), std::fabs(m.tx), std::fabs(m.ty)});
    m.shrinking = ramp(kJump, kFullJump, shrinks);
    return m;
}

// Narrow [low, high] to where slope * x + offset >= -kInside.
inline void narrow(float slope, float offset, float& low, float& high) {
    if (std::fabs(slope) < 1e-12f) {
        if (offset < -kInside) high = -1e9f;
        return;
    }
    const float x = (-kInside - offset) / slope;
    if (slope > 0)
        low = std::max(low, x);
    else
        high = std::min(high, x);
}

void fill_span(float* xs, float* ys, int first, int last, float x0, float dx, float y0, float dy) {
    for (int x = first; x <= last; ++x) {
        xs[x] = x0 + dx * static_cast<float>(x);
        ys[x] = y0 + dy * static_cast<float>(x);
    }
}

DITTO_MULTIVERSION
void raster(const std::vector<Affine>& affines, float* map_x, float* map_y, int width, int height) {
    for (int y = 0; y < height; ++y) {
        float *xs = map_x + static_cast<size_t>(y) * width, *ys = map_y + static_cast<size_t>(y) * width;
        for (int x = 0; x < width; ++x) {
            xs[x] = static_cast<float>(x);
            ys[x] = static_cast<float>(y);
        }
    }
    for (const Affine& m : affines) {
        if (!m.valid) continue;
        const int first = std::max(0, static_cast<int>(std::ceil(m.ymin - kInside)));
        const int last = std::min(height - 1, static_cast<int>(std::floor(m.ymax + kInside)));
        for (int y = first; y <= last; ++y) {
            const float dy = static_cast<float>(y) - m.ay;
            float low = -1e9f, high = 1e9f;
            narrow(m.ux, m.uy * dy, low, high);
            narrow(m.vx, m.vy * dy, low, high);
            narrow(-m.ux - m.vx, 1.0f - (m.uy + m.vy) * dy, low, high);
            if (!(low <= high)) continue;
            const float left = std::max(std::ceil(low + m.ax), 0.0f);
            const float right = std::min(std::floor(high + m.ax), static_cast<float>(width - 1));
            if (!(left <= right)) continue;
            const size_t row = static_cast<size_t>(y) * width;
            fill_span(map_x + row, map_y + row, static_cast<int>(left), static_cast<int>(right),
                      m.s0 + m.sy * dy - m.sx * m.ax, m.sx, m.t0 + m.ty * dy - m.tx * m.ax, m.tx);
        }
    }
}

// Steps of one coordinate of the map from a pixel to its neighbours; beyond the border, what lies on the other side.
struct Steps {
    float left, right, up, down;
    float jump() const { return std::max({std::fabs(left), std::fabs(right), std::fabs(up), std::fabs(down)}); }
    float bend() const { return std::max(std::fabs(right - left), std::fabs(down - up)); }
};

inline Steps steps_at(const float* map, int width, int height, int x, int y) {
    const float* at = map + static_cast<size_t>(y) * width + x;
    Steps s;
    s.left = x > 0 ? at[0] - at[-1] : at[1] - at[0];
    s.right = x + 1 < width ? at[1] - at[0] : s.left;
    s.up = y > 0 ? at[0] - at[-static_cast<std::ptrdiff_t>(width)] : at[width] - at[0];
    s.down = y + 1 < height ? at[width] - at[0] : s.up;
    return s;
}

// How far a pixel is put together of samples.
inline float sample_share(const float* map_x, const float* map_y, int width, int height, int x, int y) {
    const Steps s = steps_at(map_x, width, height, x, y), t = steps_at(map_y, width, height, x, y);
    return std::max(ramp(kJump, kFullJump, std::max(s.jump(), t.jump())),
                    ramp(kBreak, kFullBreak, std::max(s.bend(), t.bend())));
}

// Marks of a row's inner pixels: 1 where `sample_share` is not 0. `above` and `below` are the rows beside it.
DITTO_MULTIVERSION
void mark_row(const float* above, const float* row, const float* below, int width, uint8_t* marks) {
    for (int x = 1; x + 1 < width; ++x) {
        const float left = row[x] - row[x - 1], right = row[x + 1] - row[x];
        const float up = row[x] - above[x], down = below[x] - row[x];
        const float jump =
            std::max(std::max(std::fabs(left), std::fabs(right)), std::max(std::fabs(up), std::fabs(down)));
        const float bend = std::max(std::fabs(right - left), std::fabs(down - up));
        marks[x] = static_cast<uint8_t>(marks[x] | (jump > kJump) | (bend > kBreak));
    }
}

void mark_breaks(const float* map_x, const float* map_y, int width, int height, uint8_t* marks) {
    std::memset(marks, 0, static_cast<size_t>(width) * height);
    for (int y = 0; y < height; ++y) {
        uint8_t* here = marks + static_cast<size_t>(y) * width;
        if (y > 0 && y + 1 < height)
            for (const float* map : {map_x, map_y}) {
                const float* row = map + static_cast<size_t>(y) * width;
                mark_row(row - width, row, row + width, width, here);
            }
        const int stride = y > 0 && y + 1 < height ? std::max(width - 1, 1) : 1;  // the border, pixel by pixel
        for (int x = 0; x < width; x += stride) here[x] = sample_share(map_x, map_y, width, height, x, y) > 0.0f;
    }
}

struct CubicTable {
    float weight[kSteps][4];
    alignas(32) float wide[kSteps][16];    // each weight four times
    alignas(8) int16_t pairs[kSteps][4];   // in 1/16384
    CubicTable() {
        for (int i = 0; i < kSteps; ++i) {
            const double t = static_cast<double>(i) / kSteps, a = kCubic;
            double w[4];
            w[0] = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a;
            w[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
            w[2] = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1;
            w[3] = 1 - w[0] - w[1] - w[2];
            for (int k = 0; k < 4; ++k) {
                weight[i][k] = static_cast<float>(w[k]);
                pairs[i][k] = static_cast<int16_t>(std::lround(w[k] * 16384));
                for (int c = 0; c < 4; ++c) wide[i][4 * k + c] = weight[i][k];
            }
        }
    }
};

const CubicTable& cubic_table() {
    static const CubicTable table;
    return table;
}

struct Texture {
    const uint8_t* data;  // RGBA
    int width, height;
};

inline int clamped(int v, int high) { return v < 0 ? 0 : (v > high ? high : v); }

inline int position(float v) { return static_cast<int>(std::lrintf(v * kSteps)); }

// Bicubic sample at (x, y) in 1/256 pixels, held to 0 .. 255; the border repeats.
inline void sample_cubic(const Texture& texture, int x, int y, float* sum) {
    const CubicTable& table = cubic_table();
    const float *wx = table.weight[x & (kSteps - 1)], *wy = table.weight[y & (kSteps - 1)];
    const int left = (x >> 8) - 1, top = (y >> 8) - 1;
    for (int c = 0; c < 4; ++c) sum[c] = 0.0f;
    for (int j = 0; j < 4; ++j) {
        const uint8_t* row = texture.data + 4 * static_cast<size_t>(clamped(top + j, texture.height - 1)) * texture.width;
        float line[4] = {0, 0, 0, 0};
        for (int i = 0; i < 4; ++i) {
            const uint8_t* pixel = row + 4 * static_cast<size_t>(clamped(left + i, texture.width - 1));
            for (int c = 0; c < 4; ++c) line[c] += wx[i] * static_cast<float>(pixel[c]);
        }
        for (int c = 0; c < 4; ++c) sum[c] += wy[j] * line[c];
    }
    for (int c = 0; c < 4; ++c) sum[c] = std::min(std::max(sum[c], 0.0f), 255.0f);
}

inline void sample_cubic(const Texture& texture, int x, int y, uint8_t* out) {
    float sum[4];
    sample_cubic(texture, x, y, sum);
    for (int c = 0; c < 4; ++c) out[c] = static_cast<uint8_t>(std::lrintf(sum[c]));
}

inline void add_linear(const Texture& texture, float x, float y, float* sum) {
    x = std::min(std::max(x, 0.0f), static_cast<float>(texture.width - 1));
    y = std::min(std::max(y, 0.0f), static_cast<float>(texture.height - 1));
    const int left = std::min(static_cast<int>(x), texture.width - 2), top = std::min(static_cast<int>(y), texture.height - 2);
    const float fx = x - static_cast<float>(left), fy = y - static_cast<float>(top);
    const uint8_t* p = texture.data + 4 * (static_cast<size_t>(top) * texture.width + left);
    const uint8_t* q = p + 4 * static_cast<size_t>(texture.width);
    for (int c = 0; c < 4; ++c) {
        const float above = static_cast<float>(p[c]) + fx * (static_cast<float>(p[c + 4]) - static_cast<float>(p[c]));
        const float below = static_cast<float>(q[c]) + fx * (static_cast<float>(q[c + 4]) - static_cast<float>(q[c]));
        sum[c] += above + fy * (below - above);
    }
}

void sample_row_plain(const Texture& texture, const float* xs, const float* ys, int width, uint8_t* rgba) {
    for (int i = 0; i < width; ++i) sample_cubic(texture, position(xs[i]), position(ys[i]), rgba + 4 * i);
}

#if DITTO_HAS_AVX2
DITTO_AVX2
void sample_row_avx2(const Texture& texture, const float* xs, const float* ys, int width, uint8_t* rgba) {
    const CubicTable& table = cubic_table();
    const size_t stride = 4 * static_cast<size_t>(texture.width);
    const __m256 scale = _mm256_set1_ps(1.0f / 16384.0f);
    const __m256i along = _mm256_setr_epi32(0, kSteps, 2 * kSteps, 3 * kSteps, 4 * kSteps, 5 * kSteps, 6 * kSteps, 7 * kSteps);
    alignas(32) int px[8], py[8];
    for (int start = 0; start < width; start += 8) {
        const int count = std::min(8, width - start);
        if (count == 8) {
            const __m256 steps = _mm256_set1_ps(static_cast<float>(kSteps));
            const __m256i x = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(xs + start), steps));
            const __m256i y = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(ys + start), steps));
            _mm256_store_si256(reinterpret_cast<__m256i*>(px), x);
            _mm256_store_si256(reinterpret_cast<__m256i*>(py), y);
            // Eight neighbours that do not turn or stretch, at whole pixels, as where nothing moves: a copy.
            const __m256i apart = _mm256_or_si256(_mm256_xor_si256(x, _mm256_add_epi32(_mm256_set1_epi32(px[0]), along)),
                                                  _mm256_xor_si256(y, _mm256_set1_epi32(py[0])));
            const int left = px[0] >> 8, top = py[0] >> 8;
            if (_mm256_testz_si256(apart, apart) && ((px[0] | py[0]) & (kSteps - 1)) == 0 && left >= 0 && top >= 0 &&
                left <= texture.width - 8 && top < texture.height) {
                const uint8_t* from = texture.data + top * stride + 4 * static_cast<size_t>(left);
                std::memcpy(rgba + 4 * static_cast<size_t>(start), from, 32);
                continue;
            }
        } else {
            for (int k = 0; k < count; ++k) {
                px[k] = position(xs[start + k]);
                py[k] = position(ys[start + k]);
            }
        }
        for (int k = 0; k < count; ++k) {
            const int x = px[k], y = py[k], left = (x >> 8) - 1, top = (y >> 8) - 1;
            uint8_t* out = rgba + 4 * (start + k);
            if (left < 0 || top < 0 || left + 3 >= texture.width || top + 3 >= texture.height) {
                sample_cubic(texture, x, y, out);
                continue;
            }
            const uint8_t* p = texture.data + top * stride + 4 * static_cast<size_t>(left);
            if (((x | y) & (kSteps - 1)) == 0) {
                std::memcpy(out, p + stride + 4, 4);
                continue;
            }
            const auto load = [p, stride](int j) {
                return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + static_cast<size_t>(j) * stride));
            };
            const __m128i r0 = load(0), r1 = load(1), r2 = load(2), r3 = load(3);
            const int16_t* v = table.pairs[y & (kSteps - 1)];
            int32_t upper, lower;
            std::memcpy(&upper, v, 4);
            std::memcpy(&lower, v + 2, 4);
            const __m256i wu = _mm256_set1_epi32(upper), wl = _mm256_set1_epi32(lower);
            // Down the columns: two rows at a time, four channels of two neighbouring texture pixels in each half.
            const __m256i a = _mm256_add_epi32(
                _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(r0, r1)), wu),
                _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(r2, r3)), wl));
            const __m256i b = _mm256_add_epi32(
                _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(r0, r1)), wu),
                _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(r2, r3)), wl));
            const float* w = table.wide[x & (kSteps - 1)];
            __m256 line = _mm256_mul_ps(_mm256_cvtepi32_ps(a), _mm256_load_ps(w));
            line = _mm256_fmadd_ps(_mm256_cvtepi32_ps(b), _mm256_load_ps(w + 8), line);
            line = _mm256_mul_ps(line, scale);
            const __m128 sum = _mm_add_ps(_mm256_castps256_ps128(line), _mm256_extractf128_ps(line, 1));
            const __m128i rounded = _mm_cvtps_epi32(sum);
            const __m128i words = _mm_packs_epi32(rounded, rounded);
            const int pixel = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
            std::memcpy(out, &pixel, 4);
        }
    }
}
#endif

#if DITTO_HAS_LANES128
// As sample_row_avx2, in halves and without fused multiply-add.
void sample_row_128(const Texture& texture, const float* xs, const float* ys, int width, uint8_t* rgba) {
    using namespace lanes128;
    const CubicTable& table = cubic_table();
    const size_t stride = 4 * static_cast<size_t>(texture.width);
    const F4 scale = splat(1.0f / 16384.0f);
    int px[4], py[4];
    for (int start = 0; start < width; start += 4) {
        const int count = std::min(4, width - start);
        if (count == 4) {
            to_steps(xs + start, static_cast<float>(kSteps), px);
            to_steps(ys + start, static_cast<float>(kSteps), py);
        } else {
            for (int k = 0; k < count; ++k) {
                px[k] = position(xs[start + k]);
                py[k] = position(ys[start + k]);
            }
        }
        for (int k = 0; k < count; ++k) {
            const int x = px[k], y = py[k], left = (x >> 8) - 1, top = (y >> 8) - 1;
            uint8_t* out = rgba + 4 * static_cast<size_t>(start + k);
            if (left < 0 || top < 0 || left + 3 >= texture.width || top + 3 >= texture.height) {
                sample_cubic(texture, x, y, out);
                continue;
            }
            const uint8_t* p = texture.data + top * stride + 4 * static_cast<size_t>(left);
            if (((x | y) & (kSteps - 1)) == 0) {
                std::memcpy(out, p + stride + 4, 4);
                continue;
            }
            F4 column[4];
            weigh_columns(p, stride, table.pairs[y & (kSteps - 1)], column);
            const float* w = table.wide[x & (kSteps - 1)];
            const F4 even = add(mul(column[0], load(w)), mul(column[2], load(w + 8)));
            const F4 odd = add(mul(column[1], load(w + 4)), mul(column[3], load(w + 12)));
            pack(add(mul(even, scale), mul(odd, scale)), out);
        }
    }
}
#endif

void sample_row(const Texture& texture, const float* xs, const float* ys, int width, uint8_t* rgba, Lanes lanes) {
#if DITTO_HAS_AVX2
    if (lanes == Lanes::kMost && has_avx2()) return sample_row_avx2(texture, xs, ys, width, rgba);
#endif
#if DITTO_HAS_LANES128
    if (lanes != Lanes::kOne) return sample_row_128(texture, xs, ys, width, rgba);
#endif
    sample_row_plain(texture, xs, ys, width, rgba);
}

DITTO_MULTIVERSION
void split_row(const uint8_t* rgba, int width, uint8_t* rgb, uint8_t* alpha) {
    for (int x = 0; x < width; ++x) {
        rgb[3 * x] = rgba[4 * x];
        rgb[3 * x + 1] = rgba[4 * x + 1];
        rgb[3 * x + 2] = rgba[4 * x + 2];
        alpha[x] = rgba[4 * x + 3];
    }
}

// Which of a pixel's samples a triangle covers: those get its number.
DITTO_MULTIVERSION
void own_samples(float u, float v, const float* du, const float* dv, int number, int* owners) {
    for (int n = 0; n < kSamples; ++n) {
        const float at_u = u + du[n], at_v = v + dv[n];
        const bool inside = (at_u >= -kInside) & (at_v >= -kInside) & (at_u + at_v <= 1.0f + kInside);
        owners[n] = inside ? number : owners[n];
    }
}

// Adds what one triangle shows at `count` of a pixel's samples, `members`: looked up once in their middle, or at each
// of them where it shrinks the texture.
void add_owner(const Texture& texture, const Affine& m, float x, float y, const float (*offsets)[2], const int* members,
               int count, float* total) {
    float middle_x = 0.0f, middle_y = 0.0f;
    for (int i = 0; i < count; ++i) {
        middle_x += offsets[members[i]][0];
        middle_y += offsets[members[i]][1];
    }
    const auto s = [&m](float dx, float dy) { return m.s0 + m.sx * dx + m.sy * dy; };
    const auto t = [&m](float dx, float dy) { return m.t0 + m.tx * dx + m.ty * dy; };
    const float dx = x - m.ax, dy = y - m.ay, number = static_cast<float>(count);
    const float at_x = dx + middle_x / number, at_y = dy + middle_y / number;
    float colour[4];
    sample_cubic(texture, position(s(at_x, at_y)), position(t(at_x, at_y)), colour);
    if (m.shrinking > 0.0f) {
        float sum[4] = {0, 0, 0, 0};
        for (int i = 0; i < count; ++i) {
            const float* offset = offsets[members[i]];
            add_linear(texture, s(dx + offset[0], dy + offset[1]), t(dx + offset[0], dy + offset[1]), sum);
        }
        for (int c = 0; c < 4; ++c) colour[c] += m.shrinking * (sum[c] / number - colour[c]);
    }
    for (int c = 0; c < 4; ++c) total[c] += colour[c] * (number / kSamples);
}

// Marked pixels put together of their samples: the triangle on top is looked up at each of them.
void sample_marked(const Texture& texture, WarpWorkspace& work, const float* map_x, const float* map_y, int width,
                   int height, uint8_t* rgb, uint8_t* alpha) {
    const std::vector<Affine>& affines = work.affines;
    std::vector<int>&columns = work.columns, &first = work.first, &owners = work.owners;
    columns.clear();
    first.resize(static_cast<size_t>(height) + 1);
    for (int y = 0; y < height; ++y) {
        first[y] = static_cast<int>(columns.size());
        const uint8_t* row = work.marks.data() + static_cast<size_t>(y) * width;
        for (int x = 0; x < width; ++x)
            if (row[x]) columns.push_back(x);
    }
    first[height] = static_cast<int>(columns.size());
    if (columns.empty()) return;
    float offsets[kSamples][2];
    for (int n = 0; n < kSamples; ++n)
        for (int i = 0; i < 2; ++i) offsets[n][i] = (static_cast<float>(kPattern[n][i]) + 0.5f) / 16.0f;
    constexpr float kReach = 0.5f + kInside;
    owners.assign(columns.size() * kSamples, -1);
    for (size_t number = 0; number < affines.size(); ++number) {
        const Affine& m = affines[number];
        if (!m.valid) continue;
        const int top = std::max(0, static_cast<int>(std::ceil(m.ymin - kReach)));
        const int bottom = std::min(height - 1, static_cast<int>(std::floor(m.ymax + kReach)));
        float du[kSamples], dv[kSamples];
        for (int n = 0; n < kSamples; ++n) {
            du[n] = m.ux * offsets[n][0] + m.uy * offsets[n][1];
            dv[n] = m.vx * offsets[n][0] + m.vy * offsets[n][1];
        }
        for (int y = top; y <= bottom; ++y) {
            const int *begin = columns.data() + first[y], *end = columns.data() + first[y + 1];
            const int* k = std::lower_bound(begin, end, static_cast<int>(std::ceil(m.xmin - kReach)));
            for (; k < end && static_cast<float>(*k) <= m.xmax + kReach; ++k) {
                const float dx = static_cast<float>(*k) - m.ax, dy = static_cast<float>(y) - m.ay;
                own_samples(m.ux * dx + m.uy * dy, m.vx * dx + m.vy * dy, du, dv, static_cast<int>(number),
                            owners.data() + static_cast<size_t>(k - columns.data()) * kSamples);
            }
        }
    }
    Affine still{};  // what no triangle covers
    still.sx = still.ty = 1.0f;
    for (int y = 0; y < height; ++y)
        for (int k = first[y]; k < first[y + 1]; ++k) {
            const int x = columns[k], *owner = owners.data() + static_cast<size_t>(k) * kSamples;
            float total[4] = {0, 0, 0, 0};
            bool done[kSamples] = {};
            for (int n = 0; n < kSamples; ++n) {
                if (done[n]) continue;
                int members[kSamples], count = 0;
                for (int i = n; i < kSamples; ++i)
                    if (owner[i] == owner[n]) {
                        members[count++] = i;
                        done[i] = true;
                    }
                const Affine& m = owner[n] < 0 ? still : affines[owner[n]];
                add_owner(texture, m, static_cast<float>(x), static_cast<float>(y), offsets, members, count, total);
            }
            const size_t pixel = static_cast<size_t>(y) * width + x;
            float plain[4];
            sample_cubic(texture, position(map_x[pixel]), position(map_y[pixel]), plain);
            const float share = sample_share(map_x, map_y, width, height, x, y);
            for (int c = 0; c < 4; ++c) {
                const uint8_t value = static_cast<uint8_t>(std::lrintf(plain[c] + share * (total[c] - plain[c])));
                (c < 3 ? rgb[3 * pixel + c] : alpha[pixel]) = value;
            }
        }
}

}  // namespace

void warp(const uint8_t* pixels, int height, int width, const Mesh& mesh, Lanes lanes, WarpWorkspace& work, uint8_t* rgb,
          uint8_t* alpha, float* map) {
    const Texture texture{pixels, width, height};
    float *map_x = map, *map_y = map + static_cast<size_t>(width) * height;
    work.affines.resize(mesh.count);
    for (int i = 0; i < mesh.count; ++i)
        work.affines[i] = affine_of(mesh.triangles + 3 * static_cast<size_t>(i), mesh.destination, mesh.source);
    raster(work.affines, map_x, map_y, width, height);
    work.marks.resize(static_cast<size_t>(width) * height);
    mark_breaks(map_x, map_y, width, height, work.marks.data());
    work.row.resize(4 * static_cast<size_t>(width));
    for (int y = 0; y < height; ++y) {
        const size_t row = static_cast<size_t>(y) * width;
        sample_row(texture, map_x + row, map_y + row, width, work.row.data(), lanes);
        split_row(work.row.data(), width, rgb + 3 * row, alpha + row);
    }
    sample_marked(texture, work, map_x, map_y, width, height, rgb, alpha);
}

}  // namespace ditto
