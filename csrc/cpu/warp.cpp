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
#include "cpu/packs.h"
#include "dispatch.h"
#if DITTO_HAS_AVX2
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC's own headers leave operands open that no result depends on
#endif
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

DITTO_PART float ramp(float low, float high, float x) { return std::min(std::max((x - low) / (high - low), 0.0f), 1.0f); }

DITTO_PART Affine affine_of(const int* t, const float* destination, const float* source) {
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

DITTO_MULTIVERSION
void find_affines(const Mesh& mesh, Affine* affines) {
    for (int i = 0; i < mesh.count; ++i)
        affines[i] = affine_of(mesh.triangles + 3 * static_cast<size_t>(i), mesh.destination, mesh.source);
}

// A triangle in kRows rows of the picture: its pixels are left .. right where left <= right, and x_start + sx * x and
// y_start + tx * x their map.
constexpr int kRows = 16;
struct Spans {
    alignas(64) float left[kRows], right[kRows], x_start[kRows], y_start[kRows];
};

// The edges of a triangle as bounds of x: (offset + rise * dy) * scale from corner a on, two below, then two above; one of
// them twice where only one bounds that side.
struct Bounds {
    float offset[4], rise[4], scale[4];
};

DITTO_PART Bounds bounds_of(const Affine& m) {
    const float slope[3] = {m.ux, m.vx, -m.ux - m.vx}, rise[3] = {m.uy, m.vy, -m.uy - m.vy}, start[3] = {0.0f, 0.0f, 1.0f};
    Bounds b{};
    bool full[4] = {};
    for (int i = 0; i < 3; ++i) {
        const float across = std::fabs(slope[i]) < 1e-12f ? 1e-12f : slope[i];  // along the rows: all of a row or nothing
        int at = across > 0.0f ? 0 : 2;
        at += full[at];
        full[at] = true;
        b.offset[at] = -kInside - start[i];
        b.rise[at] = -rise[i];
        b.scale[at] = 1.0f / across;
    }
    for (int at : {0, 2})
        if (!full[at + 1]) {
            b.offset[at + 1] = b.offset[at];
            b.rise[at + 1] = b.rise[at];
            b.scale[at + 1] = b.scale[at];
        }
    return b;
}

DITTO_PART void find_spans(const Affine& m, const Bounds& b, int first, int width, Spans& s) {
    const float most = static_cast<float>(width - 1), start = static_cast<float>(first) - m.ay;
    const float x_corner = m.s0 - m.sx * m.ax, y_corner = m.t0 - m.tx * m.ax;
    for (int r = 0; r < kRows; ++r) {
        const float dy = start + static_cast<float>(r);
        float x[4];
        for (int i = 0; i < 4; ++i) x[i] = (b.offset[i] + b.rise[i] * dy) * b.scale[i] + m.ax;
        s.left[r] = std::max(std::ceil(std::max(x[0], x[1])), 0.0f);
        s.right[r] = std::min(std::floor(std::min(x[2], x[3])), most);
        s.x_start[r] = x_corner + m.sy * dy;
        s.y_start[r] = y_corner + m.ty * dy;
    }
}

DITTO_PART void identity(float* map_x, float* map_y, int width, int height) {
    for (int y = 0; y < height; ++y) {
        float *xs = map_x + static_cast<size_t>(y) * width, *ys = map_y + static_cast<size_t>(y) * width;
        for (int x = 0; x < width; ++x) {
            xs[x] = static_cast<float>(x);
            ys[x] = static_cast<float>(y);
        }
    }
}

// Rows first .. last of the picture that a triangle touches.
DITTO_PART int first_row(const Affine& m) { return std::max(0, static_cast<int>(std::ceil(m.ymin - kInside))); }
DITTO_PART int last_row(const Affine& m, int height) {
    return std::min(height - 1, static_cast<int>(std::floor(m.ymax + kInside)));
}

DITTO_MULTIVERSION
void raster_plain(const std::vector<Affine>& affines, float* map_x, float* map_y, int width, int height) {
    identity(map_x, map_y, width, height);
    Spans s;
    for (const Affine& m : affines) {
        if (!m.valid) continue;
        const Bounds bounds = bounds_of(m);
        const int last = last_row(m, height);
        for (int y = first_row(m); y <= last; y += kRows) {
            find_spans(m, bounds, y, width, s);
            for (int r = 0; r < std::min(kRows, last + 1 - y); ++r) {
                if (!(s.left[r] <= s.right[r])) continue;
                float *xs = map_x + static_cast<size_t>(y + r) * width, *ys = map_y + static_cast<size_t>(y + r) * width;
                const int end = static_cast<int>(s.right[r]) + 1;
                for (int x = static_cast<int>(s.left[r]); x < end; ++x) {
                    xs[x] = s.x_start[r] + m.sx * static_cast<float>(x);
                    ys[x] = s.y_start[r] + m.tx * static_cast<float>(x);
                }
            }
        }
    }
}

#if DITTO_HAS_AVX2
// As raster_plain; 16 pixels of a span at once.
DITTO_AVX512
void raster_avx512(const std::vector<Affine>& affines, float* map_x, float* map_y, int width, int height) {
    identity(map_x, map_y, width, height);
    const __m512 along = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    Spans s;
    for (const Affine& m : affines) {
        if (!m.valid) continue;
        const Bounds bounds = bounds_of(m);
        const int last = last_row(m, height);
        const __m512 sx = _mm512_set1_ps(m.sx), tx = _mm512_set1_ps(m.tx);
        for (int y = first_row(m); y <= last; y += kRows) {
            find_spans(m, bounds, y, width, s);
            for (int r = 0; r < std::min(kRows, last + 1 - y); ++r) {
                if (!(s.left[r] <= s.right[r])) continue;
                float *xs = map_x + static_cast<size_t>(y + r) * width, *ys = map_y + static_cast<size_t>(y + r) * width;
                const __m512 x_start = _mm512_set1_ps(s.x_start[r]), y_start = _mm512_set1_ps(s.y_start[r]);
                const int end = static_cast<int>(s.right[r]) + 1;
                for (int x = static_cast<int>(s.left[r]); x < end; x += 16) {
                    const __mmask16 inside = static_cast<__mmask16>(end - x >= 16 ? 0xffff : (1 << (end - x)) - 1);
                    const __m512 at = _mm512_add_ps(_mm512_set1_ps(static_cast<float>(x)), along);
                    _mm512_mask_storeu_ps(xs + x, inside, _mm512_fmadd_ps(sx, at, x_start));
                    _mm512_mask_storeu_ps(ys + x, inside, _mm512_fmadd_ps(tx, at, y_start));
                }
            }
        }
    }
}
#endif

void raster(const std::vector<Affine>& affines, float* map_x, float* map_y, int width, int height) {
#if DITTO_HAS_AVX2
    if (has_avx512()) return raster_avx512(affines, map_x, map_y, width, height);
#endif
    raster_plain(affines, map_x, map_y, width, height);
}

// Steps of one coordinate of the map from a pixel to its neighbours; beyond the border, what lies on the other side.
struct Steps {
    float left, right, up, down;
    float jump() const { return std::max({std::fabs(left), std::fabs(right), std::fabs(up), std::fabs(down)}); }
    float bend() const { return std::max(std::fabs(right - left), std::fabs(down - up)); }
};

DITTO_PART Steps steps_at(const float* map, int width, int height, int x, int y) {
    const float* at = map + static_cast<size_t>(y) * width + x;
    Steps s;
    s.left = x > 0 ? at[0] - at[-1] : at[1] - at[0];
    s.right = x + 1 < width ? at[1] - at[0] : s.left;
    s.up = y > 0 ? at[0] - at[-static_cast<std::ptrdiff_t>(width)] : at[width] - at[0];
    s.down = y + 1 < height ? at[width] - at[0] : s.up;
    return s;
}

// How far a pixel is put together of samples.
DITTO_PART float sample_share(const float* map_x, const float* map_y, int width, int height, int x, int y) {
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
    alignas(16) float scaled[kSteps][4];   // over 16384
    alignas(16) int16_t pairs[kSteps][8];  // in 1/16384, twice
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
                scaled[i][k] = weight[i][k] / 16384.0f;
                pairs[i][k] = pairs[i][k + 4] = static_cast<int16_t>(std::lround(w[k] * 16384));
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

DITTO_PART int clamped(int v, int high) { return v < 0 ? 0 : (v > high ? high : v); }

DITTO_PART uint8_t rounded(float v) { return static_cast<uint8_t>(std::lrintf(v)); }

DITTO_PART int position(float v) { return static_cast<int>(std::lrintf(v * kSteps)); }

// Bicubic sample at (x, y) in 1/256 pixels, held to 0 .. 255; the border repeats.
DITTO_PART void sample_cubic(const Texture& texture, int x, int y, float* sum) {
    const CubicTable& table = cubic_table();
    const float *wx = table.weight[x & (kSteps - 1)], *wy = table.weight[y & (kSteps - 1)];
    const int left = (x >> 8) - 1, top = (y >> 8) - 1;
    size_t column[4];
    for (int i = 0; i < 4; ++i) column[i] = 4 * static_cast<size_t>(clamped(left + i, texture.width - 1));
    Four total{};
    for (int j = 0; j < 4; ++j) {
        const uint8_t* row = texture.data + 4 * static_cast<size_t>(clamped(top + j, texture.height - 1)) * texture.width;
        Four line{};
        for (int i = 0; i < 4; ++i) line = line + wx[i] * load_bytes(row + column[i]);
        total = total + wy[j] * line;
    }
    store(sum, total);
    for (int c = 0; c < 4; ++c) sum[c] = std::min(std::max(sum[c], 0.0f), 255.0f);
}

inline void sample_cubic(const Texture& texture, int x, int y, uint8_t* out) {
    float sum[4];
    sample_cubic(texture, x, y, sum);
    for (int c = 0; c < 4; ++c) out[c] = static_cast<uint8_t>(std::lrintf(sum[c]));
}

DITTO_PART void add_linear(const Texture& texture, float x, float y, float* sum) {
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

// 16 bytes from each of four places.
DITTO_AVX512
inline __m512i gather_lanes(const void* a, const void* b, const void* c, const void* d) {
    const auto load = [](const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); };
    __m512i lanes = _mm512_castsi128_si512(load(a));
    lanes = _mm512_mask_broadcast_i32x4(lanes, 0x00f0, load(b));
    lanes = _mm512_mask_broadcast_i32x4(lanes, 0x0f00, load(c));
    return _mm512_mask_broadcast_i32x4(lanes, 0xf000, load(d));
}

// As sample_row_avx2, bit for bit, four pixels at once: one in each 128 bits. Writes whole groups of 16 pixels.
DITTO_AVX512
void sample_row_avx512(const Texture& texture, const float* xs, const float* ys, int width, uint8_t* rgba) {
    const CubicTable& table = cubic_table();
    const size_t stride = 4 * static_cast<size_t>(texture.width);
    const __m512i zero = _mm512_setzero_si512(), fraction = _mm512_set1_epi32(kSteps - 1);
    const __m512i along = _mm512_slli_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 8);
    const __m512 steps = _mm512_set1_ps(static_cast<float>(kSteps));
    const __m512i most_left = _mm512_set1_epi32(texture.width - 4), most_top = _mm512_set1_epi32(texture.height - 4);
    alignas(64) int px[16], py[16], left[16], top[16];
    for (int start = 0; start < width; start += 16) {
        const __mmask16 inside = static_cast<__mmask16>(width - start >= 16 ? 0xffff : (1 << (width - start)) - 1);
        const __m512i x = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(inside, xs + start), steps));
        const __m512i y = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(inside, ys + start), steps));
        const __m512i x0 = _mm512_broadcastd_epi32(_mm512_castsi512_si128(x)), y0 = _mm512_broadcastd_epi32(_mm512_castsi512_si128(y));
        uint8_t* out = rgba + 4 * static_cast<size_t>(start);
        // 16 neighbours that do not turn or stretch, at whole pixels, as where nothing moves: a copy.
        const __m512i apart = _mm512_or_si512(_mm512_xor_si512(x, _mm512_add_epi32(x0, along)), _mm512_xor_si512(y, y0));
        if (_mm512_test_epi32_mask(apart, apart) == 0 && _mm512_test_epi32_mask(_mm512_or_si512(x, y), fraction) == 0) {
            const int column = _mm_cvtsi128_si32(_mm512_castsi512_si128(x)) >> 8, row = _mm_cvtsi128_si32(_mm512_castsi512_si128(y)) >> 8;
            if (column >= 0 && row >= 0 && column <= texture.width - 16 && row < texture.height) {
                std::memcpy(out, texture.data + row * stride + 4 * static_cast<size_t>(column), 64);
                continue;
            }
        }
        const __m512i at_x = _mm512_sub_epi32(_mm512_srai_epi32(x, 8), _mm512_set1_epi32(1));
        const __m512i at_y = _mm512_sub_epi32(_mm512_srai_epi32(y, 8), _mm512_set1_epi32(1));
        const __m512i held_x = _mm512_max_epi32(_mm512_min_epi32(at_x, most_left), zero);
        const __m512i held_y = _mm512_max_epi32(_mm512_min_epi32(at_y, most_top), zero);
        const int beyond = _mm512_cmpneq_epi32_mask(at_x, held_x) | _mm512_cmpneq_epi32_mask(at_y, held_y);
        _mm512_store_si512(px, x);
        _mm512_store_si512(py, y);
        _mm512_store_si512(left, held_x);
        _mm512_store_si512(top, held_y);
        for (int k = 0; k < 16; k += 4) {
            const uint8_t* p[4];
            const int16_t* down[4];
            const float* across[4];
            for (int i = 0; i < 4; ++i) {
                p[i] = texture.data + top[k + i] * stride + 4 * static_cast<size_t>(left[k + i]);
                down[i] = table.pairs[py[k + i] & (kSteps - 1)];
                across[i] = table.scaled[px[k + i] & (kSteps - 1)];
            }
            const __m512i r0 = gather_lanes(p[0], p[1], p[2], p[3]);
            const __m512i r1 = gather_lanes(p[0] + stride, p[1] + stride, p[2] + stride, p[3] + stride);
            const __m512i r2 = gather_lanes(p[0] + 2 * stride, p[1] + 2 * stride, p[2] + 2 * stride, p[3] + 2 * stride);
            const __m512i r3 = gather_lanes(p[0] + 3 * stride, p[1] + 3 * stride, p[2] + 3 * stride, p[3] + 3 * stride);
            const __m512i v = gather_lanes(down[0], down[1], down[2], down[3]);
            const __m512i wu = _mm512_shuffle_epi32(v, _MM_PERM_AAAA), wl = _mm512_shuffle_epi32(v, _MM_PERM_BBBB);
            const __m512 w = _mm512_castsi512_ps(gather_lanes(across[0], across[1], across[2], across[3]));
            // Down the columns, two rows at a time, four channels of a column in each vector.
            const __m512i left_u = _mm512_unpacklo_epi8(r0, r1), left_l = _mm512_unpacklo_epi8(r2, r3);
            const __m512i right_u = _mm512_unpackhi_epi8(r0, r1), right_l = _mm512_unpackhi_epi8(r2, r3);
            const __m512 c0 = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_madd_epi16(_mm512_unpacklo_epi8(left_u, zero), wu),
                                                                  _mm512_madd_epi16(_mm512_unpacklo_epi8(left_l, zero), wl)));
            const __m512 c1 = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_madd_epi16(_mm512_unpackhi_epi8(left_u, zero), wu),
                                                                  _mm512_madd_epi16(_mm512_unpackhi_epi8(left_l, zero), wl)));
            const __m512 c2 = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_madd_epi16(_mm512_unpacklo_epi8(right_u, zero), wu),
                                                                  _mm512_madd_epi16(_mm512_unpacklo_epi8(right_l, zero), wl)));
            const __m512 c3 = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_madd_epi16(_mm512_unpackhi_epi8(right_u, zero), wu),
                                                                  _mm512_madd_epi16(_mm512_unpackhi_epi8(right_l, zero), wl)));
            const __m512 even = _mm512_fmadd_ps(c2, _mm512_shuffle_ps(w, w, 0xaa), _mm512_mul_ps(c0, _mm512_shuffle_ps(w, w, 0x00)));
            const __m512 odd = _mm512_fmadd_ps(c3, _mm512_shuffle_ps(w, w, 0xff), _mm512_mul_ps(c1, _mm512_shuffle_ps(w, w, 0x55)));
            const __m512i rounded = _mm512_max_epi32(_mm512_cvtps_epi32(_mm512_add_ps(even, odd)), zero);
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 4 * k), _mm512_cvtusepi32_epi8(rounded));
        }
        for (int k = 0; beyond >> k; ++k)  // taps beyond the border
            if (beyond >> k & 1) sample_cubic(texture, px[k], py[k], out + 4 * k);
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
    if (lanes == Lanes::kMost && has_avx512() && texture.width >= 4 && texture.height >= 4) return sample_row_avx512(texture, xs, ys, width, rgba);
    if ((lanes == Lanes::kMost || lanes == Lanes::kEight) && has_avx2()) return sample_row_avx2(texture, xs, ys, width, rgba);
#endif
#if DITTO_HAS_LANES128
    if (lanes != Lanes::kOne) return sample_row_128(texture, xs, ys, width, rgba);
#endif
    sample_row_plain(texture, xs, ys, width, rgba);
}

DITTO_MULTIVERSION
void split_row_plain(const uint8_t* rgba, int width, uint8_t* rgb, uint8_t* alpha) {
    for (int x = 0; x < width; ++x) {
        rgb[3 * x] = rgba[4 * x];
        rgb[3 * x + 1] = rgba[4 * x + 1];
        rgb[3 * x + 2] = rgba[4 * x + 2];
        alpha[x] = rgba[4 * x + 3];
    }
}

#if DITTO_HAS_AVX2
DITTO_AVX2
void split_row_avx2(const uint8_t* rgba, int width, uint8_t* rgb, uint8_t* alpha) {
    const __m128i apart = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
    int x = 0;
    for (; x + 6 <= width; x += 4) {  // each store's last four bytes are written over by the next
        const __m128i pixels = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(rgba + 4 * x)), apart);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(rgb + 3 * x), pixels);
        const int opacity = _mm_extract_epi32(pixels, 3);
        std::memcpy(alpha + x, &opacity, 4);
    }
    split_row_plain(rgba + 4 * x, width - x, rgb + 3 * x, alpha + x);
}
#endif

void split_row(const uint8_t* rgba, int width, uint8_t* rgb, uint8_t* alpha) {
#if DITTO_HAS_AVX2
    if (has_avx2()) return split_row_avx2(rgba, width, rgb, alpha);
#endif
    split_row_plain(rgba, width, rgb, alpha);
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
// of them where it shrinks the texture. The result is its part of the pixel.
DITTO_PART Part add_owner(const Texture& texture, const Affine& m, float x, float y, const float (*offsets)[2], const int* members,
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
    const Part part{0, s(at_x, at_y), t(at_x, at_y), number / kSamples};
    float colour[4];
    sample_cubic(texture, position(part.x), position(part.y), colour);
    if (m.shrinking > 0.0f) {
        float sum[4] = {0, 0, 0, 0};
        for (int i = 0; i < count; ++i) {
            const float* offset = offsets[members[i]];
            add_linear(texture, s(dx + offset[0], dy + offset[1]), t(dx + offset[0], dy + offset[1]), sum);
        }
        for (int c = 0; c < 4; ++c) colour[c] += m.shrinking * (sum[c] / number - colour[c]);
    }
    for (int c = 0; c < 4; ++c) total[c] += colour[c] * part.weight;
    return part;
}

// Marked pixels put together of their samples: the triangle on top is looked up at each of them.
void sample_marked(const Texture& texture, WarpWorkspace& work, const float* map_x, const float* map_y, int width,
                   int height, uint8_t* rgb, uint8_t* alpha) {
    const std::vector<Affine>& affines = work.affines;
    std::vector<int>&columns = work.columns, &first = work.first, &owners = work.owners;
    columns.clear();
    work.parts.clear();
    first.resize(static_cast<size_t>(height) + 1);
    for (int y = 0; y < height; ++y) {
        first[y] = static_cast<int>(columns.size());
        const uint8_t *row = work.marks.data() + static_cast<size_t>(y) * width, *end = row + width;
        for (const uint8_t* at = row; (at = static_cast<const uint8_t*>(std::memchr(at, 1, end - at))) != nullptr; ++at)
            columns.push_back(static_cast<int>(at - row));
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
        if (bottom < top || first[top] == first[bottom + 1]) continue;
        float du[kSamples], dv[kSamples], most_u = 0.0f, most_v = 0.0f, most_sum = 0.0f;
        for (int n = 0; n < kSamples; ++n) {
            du[n] = m.ux * offsets[n][0] + m.uy * offsets[n][1];
            dv[n] = m.vx * offsets[n][0] + m.vy * offsets[n][1];
            most_u = std::max(most_u, du[n]);
            most_v = std::max(most_v, dv[n]);
            most_sum = std::max(most_sum, -du[n] - dv[n]);
        }
        for (int y = top; y <= bottom; ++y) {
            if (first[y] == first[y + 1]) continue;
            const int *begin = columns.data() + first[y], *end = columns.data() + first[y + 1];
            const int* k = std::lower_bound(begin, end, static_cast<int>(std::ceil(m.xmin - kReach)));
            for (; k < end && static_cast<float>(*k) <= m.xmax + kReach; ++k) {
                const float dx = static_cast<float>(*k) - m.ax, dy = static_cast<float>(y) - m.ay;
                const float u = m.ux * dx + m.uy * dy, v = m.vx * dx + m.vy * dy;
                constexpr float kBeyond = 2.0f * kInside;  // by which no sample is inside, however it is rounded
                if (u + most_u < -kBeyond || v + most_v < -kBeyond || u + v - most_sum > 1.0f + kBeyond) continue;
                own_samples(u, v, du, dv, static_cast<int>(number),
                            owners.data() + static_cast<size_t>(k - columns.data()) * kSamples);
            }
        }
    }
    Affine still{};  // what no triangle covers
    still.sx = still.ty = 1.0f;
    for (int y = 0; y < height; ++y)
        for (int k = first[y]; k < first[y + 1]; ++k) {
            const int x = columns[k], *owner = owners.data() + static_cast<size_t>(k) * kSamples;
            const size_t pixel = static_cast<size_t>(y) * width + x;
            const float share = sample_share(map_x, map_y, width, height, x, y);
            float total[4] = {0, 0, 0, 0};
            bool done[kSamples] = {};
            Part parts[kSamples + 1];
            int known = 0;
            for (int n = 0; n < kSamples; ++n) {
                if (done[n]) continue;
                int members[kSamples], count = 0;
                for (int i = n; i < kSamples; ++i)
                    if (owner[i] == owner[n]) {
                        members[count++] = i;
                        done[i] = true;
                    }
                const Affine& m = owner[n] < 0 ? still : affines[owner[n]];
                Part& part = parts[known++];
                part = add_owner(texture, m, static_cast<float>(x), static_cast<float>(y), offsets, members, count, total);
                part.pixel = static_cast<int>(pixel);
                part.weight *= share;
            }
            if (share < 1.0f) parts[known++] = {static_cast<int>(pixel), map_x[pixel], map_y[pixel], 1.0f - share};
            work.parts.insert(work.parts.end(), parts, parts + known);
            float plain[4];
            sample_cubic(texture, position(map_x[pixel]), position(map_y[pixel]), plain);
            for (int c = 0; c < 4; ++c) {
                const uint8_t value = static_cast<uint8_t>(std::lrintf(plain[c] + share * (total[c] - plain[c])));
                (c < 3 ? rgb[3 * pixel + c] : alpha[pixel]) = value;
            }
        }
}

// ---- carry

constexpr int kRun = 16;
constexpr float kTapsReach = 2.01f;  // px from a position to its furthest tap, and the rounding of positions

// Around which pixel a run of positions lies, and how far from it the values are the same.
struct Flat {
    size_t at;
    float x, y, reach;
};

DITTO_PART Flat flat_around(const Carried& carried, int height, int width, float x, float y) {
    const int column = static_cast<int>(std::min(std::max(x, 0.0f), static_cast<float>(width - 1)));
    const int row = static_cast<int>(std::min(std::max(y, 0.0f), static_cast<float>(height - 1)));
    const size_t at = static_cast<size_t>(row) * width + column;
    return {at, static_cast<float>(column), static_cast<float>(row), static_cast<float>(carried.flat[at]) - kTapsReach};
}

// Held to 0 .. 255.
DITTO_PART float sample_plane(const CubicTable& table, const uint8_t* plane, int height, int width, float at_x, float at_y) {
    const int x = position(std::min(std::max(at_x, -4.0f), static_cast<float>(width + 4)));
    const int y = position(std::min(std::max(at_y, -4.0f), static_cast<float>(height + 4)));
    const int left = (x >> 8) - 1, top = (y >> 8) - 1;
    if (((x | y) & (kSteps - 1)) == 0)
        return plane[static_cast<size_t>(clamped(top + 1, height - 1)) * width + clamped(left + 1, width - 1)];
    const float *wx = table.weight[x & (kSteps - 1)], *wy = table.weight[y & (kSteps - 1)];
    float sum = 0.0f;
    if (left >= 0 && top >= 0 && left + 3 < width && top + 3 < height) {
        const uint8_t* taps = plane + static_cast<size_t>(top) * width + left;
        float line[4];
        store(line, wy[0] * load_bytes(taps) + wy[1] * load_bytes(taps + width) +
                        wy[2] * load_bytes(taps + 2 * static_cast<size_t>(width)) +
                        wy[3] * load_bytes(taps + 3 * static_cast<size_t>(width)));
        sum = wx[0] * line[0] + wx[1] * line[1] + wx[2] * line[2] + wx[3] * line[3];
        return std::min(std::max(sum, 0.0f), 255.0f);
    }
    for (int j = 0; j < 4; ++j) {
        const uint8_t* row = plane + static_cast<size_t>(clamped(top + j, height - 1)) * width;
        float line = 0.0f;
        for (int i = 0; i < 4; ++i) line += wx[i] * static_cast<float>(row[clamped(left + i, width - 1)]);
        sum += wy[j] * line;
    }
    return std::min(std::max(sum, 0.0f), 255.0f);
}

void carry_row_plain(const Carried& carried, int height, int width, const float* xs, const float* ys, int first, int last) {
    const CubicTable& table = cubic_table();
    for (int i = first; i < last; ++i) {
        const Flat flat = flat_around(carried, height, width, xs[i], ys[i]);
        const bool same = flat.reach >= 1.0f;  // of all taps
        carried.out[i] = same ? carried.values[flat.at] : rounded(sample_plane(table, carried.values, height, width, xs[i], ys[i]));
    }
}

#if DITTO_HAS_AVX2
// The 16 taps of a pixel, column by column in pairs of rows, weighted; `fx` and `fy` are the position between pixels.
DITTO_AVX2
inline __m256 weighted_taps(const CubicTable& table, const uint8_t* taps, int width, int fx, int fy) {
    int rows[4];
    for (int j = 0; j < 4; ++j) std::memcpy(&rows[j], taps + static_cast<size_t>(j) * width, 4);
    const __m128i turned = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m128i bytes = _mm_shuffle_epi8(_mm_setr_epi32(rows[0], rows[1], rows[2], rows[3]), turned);
    const __m256i down = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table.pairs[fy])));
    const __m256 across = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_load_ps(table.scaled[fx])),
                                                   _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_cvtepu8_epi16(bytes), down)), across);
}

DITTO_AVX2
inline bool all_near(const float* values, float middle, __m256 reach) {
    const __m256 sign = _mm256_set1_ps(-0.0f), at = _mm256_set1_ps(middle);
    const __m256 a = _mm256_andnot_ps(sign, _mm256_sub_ps(_mm256_loadu_ps(values), at));
    const __m256 b = _mm256_andnot_ps(sign, _mm256_sub_ps(_mm256_loadu_ps(values + 8), at));
    return _mm256_movemask_ps(_mm256_cmp_ps(_mm256_max_ps(a, b), reach, _CMP_GT_OQ)) == 0;
}

// As carry_row_plain, but for the last bits.
DITTO_AVX2
void carry_row_avx2(const Carried& carried, int height, int width, const float* xs, const float* ys) {
    const CubicTable& table = cubic_table();
    const __m256 steps = _mm256_set1_ps(static_cast<float>(kSteps));
    const __m256i one = _mm256_set1_epi32(1), fraction = _mm256_set1_epi32(kSteps - 1), zero = _mm256_setzero_si256();
    const __m256i most_left = _mm256_set1_epi32(width - 4), most_top = _mm256_set1_epi32(height - 4);
    int start = 0;
    for (; start + kRun <= width; start += kRun) {
        const Flat flat = flat_around(carried, height, width, xs[start + kRun / 2], ys[start + kRun / 2]);
        const __m256 reach = _mm256_set1_ps(flat.reach);
        if (all_near(xs + start, flat.x, reach) && all_near(ys + start, flat.y, reach)) {
            _mm_storeu_si128(reinterpret_cast<__m128i*>(carried.out + start), _mm_set1_epi8(static_cast<char>(carried.values[flat.at])));
            continue;
        }
        for (int first = start; first < start + kRun; first += 8) {
            const __m256i x = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(xs + first), steps));
            const __m256i y = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(ys + first), steps));
            const __m256i left = _mm256_sub_epi32(_mm256_srai_epi32(x, 8), one), top = _mm256_sub_epi32(_mm256_srai_epi32(y, 8), one);
            const __m256i beyond = _mm256_or_si256(_mm256_or_si256(_mm256_cmpgt_epi32(zero, left), _mm256_cmpgt_epi32(left, most_left)),
                                                   _mm256_or_si256(_mm256_cmpgt_epi32(zero, top), _mm256_cmpgt_epi32(top, most_top)));
            if (!_mm256_testz_si256(beyond, beyond)) {
                carry_row_plain(carried, height, width, xs, ys, first, first + 8);
                continue;
            }
            alignas(32) int at_x[8], at_y[8], fx[8], fy[8];
            _mm256_store_si256(reinterpret_cast<__m256i*>(at_x), left);
            _mm256_store_si256(reinterpret_cast<__m256i*>(at_y), top);
            _mm256_store_si256(reinterpret_cast<__m256i*>(fx), _mm256_and_si256(x, fraction));
            _mm256_store_si256(reinterpret_cast<__m256i*>(fy), _mm256_and_si256(y, fraction));
            __m256 p[8];
            for (int k = 0; k < 8; ++k)
                p[k] = weighted_taps(table, carried.values + static_cast<size_t>(at_y[k]) * width + at_x[k], width, fx[k], fy[k]);
            const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(p[0], p[1]), _mm256_hadd_ps(p[2], p[3]));
            const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(p[4], p[5]), _mm256_hadd_ps(p[6], p[7]));
            const __m128i upper = _mm_cvtps_epi32(_mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1)));
            const __m128i lower = _mm_cvtps_epi32(_mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1)));
            const __m128i words = _mm_packs_epi32(upper, lower);
            _mm_storel_epi64(reinterpret_cast<__m128i*>(carried.out + first), _mm_packus_epi16(words, words));
        }
    }
    carry_row_plain(carried, height, width, xs, ys, start, width);
}
#endif

void carry_row(const Carried& carried, int height, int width, const float* xs, const float* ys) {
#if DITTO_HAS_AVX2
    if (has_avx2()) return carry_row_avx2(carried, height, width, xs, ys);
#endif
    carry_row_plain(carried, height, width, xs, ys, 0, width);
}

}  // namespace

void carry(const Carried& carried, int height, int width, const float* map, const std::vector<Part>& parts) {
    const float* map_y = map + static_cast<size_t>(width) * height;
    Carried line = carried;
    for (int y = 0; y < height; ++y, line.out += width)
        carry_row(line, height, width, map + static_cast<size_t>(y) * width, map_y + static_cast<size_t>(y) * width);
    const CubicTable& table = cubic_table();
    for (size_t k = 0; k < parts.size();) {
        const int pixel = parts[k].pixel;
        float sum = 0.0f;
        for (; k < parts.size() && parts[k].pixel == pixel; ++k)
            sum += parts[k].weight * sample_plane(table, carried.values, height, width, parts[k].x, parts[k].y);
        carried.out[pixel] = rounded(sum);
    }
}

void warp(const uint8_t* pixels, int height, int width, const Mesh& mesh, Lanes lanes, WarpWorkspace& work, uint8_t* rgb,
          uint8_t* alpha, float* map) {
    const Texture texture{pixels, width, height};
    float *map_x = map, *map_y = map + static_cast<size_t>(width) * height;
    work.affines.resize(mesh.count);
    find_affines(mesh, work.affines.data());
    raster(work.affines, map_x, map_y, width, height);
    work.marks.resize(static_cast<size_t>(width) * height);
    mark_breaks(map_x, map_y, width, height, work.marks.data());
    work.row.resize(4 * static_cast<size_t>(width + 15));  // whole groups of 16 pixels
    for (int y = 0; y < height; ++y) {
        const size_t row = static_cast<size_t>(y) * width;
        sample_row(texture, map_x + row, map_y + row, width, work.row.data(), lanes);
        split_row(work.row.data(), width, rgb + 3 * row, alpha + row);
    }
    sample_marked(texture, work, map_x, map_y, width, height, rgb, alpha);
}

}  // namespace ditto
