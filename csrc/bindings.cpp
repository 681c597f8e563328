// The Python module: the kernels for ditto/ops and the core for the lite renderer. Every argument of a kernel but the first
// is passed by name. The functions in ditto/ops check shapes and types before they call a kernel; ditto/_native.pyi has the
// signatures.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "fields.h"

namespace py = pybind11;

void bind_core(py::module_&);  // core_binding.cpp

namespace {

using ditto::Box;
using ditto::EyeView;
using ditto::Image;
using ditto::MouthScene;
using ditto::Plane;
using U8 = py::array_t<uint8_t, py::array::c_style>;
using I16 = py::array_t<int16_t, py::array::c_style>;
using I32 = py::array_t<int, py::array::c_style>;
using F32 = py::array_t<float, py::array::c_style>;
using F64 = py::array_t<double, py::array::c_style>;

template <class Array>
int size_of(const Array& array, int axis) {
    return static_cast<int>(array.shape(axis));
}

Image image_of(U8& a) { return {a.mutable_data(), size_of(a, 0), size_of(a, 1)}; }
Plane plane_of(const F32& a) { return {a.data(), size_of(a, 0), size_of(a, 1)}; }

// texture (H, W, 4), triangles (N, 3), destination and source (V, 2) -> colour (H, W, 3), alpha (H, W), map (2, H, W), and of the
// parts pixels (P), places (P, 2), weights (P).
// `lanes`, for tests, is a value of ditto::Lanes.
py::tuple warp(const U8& texture, const I32& triangles, const F32& destination, const F32& source, int lanes) {
    const int height = size_of(texture, 0), width = size_of(texture, 1);
    U8 colour({height, width, 3}), alpha({height, width});
    F32 map({2, height, width});
    const ditto::Mesh mesh{triangles.data(), size_of(triangles, 0), destination.data(), source.data()};
    const uint8_t* pixels = texture.data();
    uint8_t *rgb = colour.mutable_data(), *opacity = alpha.mutable_data();
    float* origin = map.mutable_data();
    ditto::WarpWorkspace work;
    {
        py::gil_scoped_release release;
        ditto::warp(pixels, height, width, mesh, static_cast<ditto::Lanes>(lanes), work, rgb, opacity, origin);
    }
    const py::ssize_t count = static_cast<py::ssize_t>(work.parts.size());
    I32 part_pixels(count);
    F32 places({count, py::ssize_t{2}}), weights(count);
    for (py::ssize_t k = 0; k < count; ++k) {
        const ditto::Part& part = work.parts[k];
        part_pixels.mutable_at(k) = part.pixel;
        places.mutable_at(k, 0) = part.x;
        places.mutable_at(k, 1) = part.y;
        weights.mutable_at(k) = part.weight;
    }
    return py::make_tuple(colour, alpha, map, part_pixels, places, weights);
}

// plane and flat (H, W), map (2, H, W), of the parts pixels (P), places (P, 2), weights (P) -> (H, W)
U8 carry(const U8& plane, const U8& flat, const F32& map, const I32& pixels, const F32& places, const F32& weights) {
    const int height = size_of(plane, 0), width = size_of(plane, 1);
    U8 out({height, width});
    const float* origin = map.data();
    std::vector<ditto::Part> parts;
    for (int k = 0; k < size_of(pixels, 0); ++k) parts.push_back({pixels.at(k), places.at(k, 0), places.at(k, 1), weights.at(k)});
    const ditto::Carried carried{plane.data(), flat.data(), nullptr, out.mutable_data()};
    {
        py::gil_scoped_release release;
        ditto::carry(carried, height, width, origin, parts);
    }
    return out;
}

void composite(U8& image, const U8& alpha, const U8& plate, const F32& gate) {
    const Image pixels = image_of(image);
    const Plane cells = plane_of(gate);
    const uint8_t *opacity = alpha.data(), *behind = plate.data();
    py::gil_scoped_release release;
    ditto::composite(pixels, opacity, behind, cells);
}

EyeView make_view(const py::kwargs& given) {
    EyeView v;
    Fields fields("EyeView", given);
    fields.take("to_source", v.to_source);
    fields.take("centre", v.centre);
    fields.take("reach", v.reach);
    fields.take("to_eye", v.to_eye);
    fields.take("down", v.down);
    fields.take("xi_limit", v.xi_limit);
    fields.take("sharpness", v.sharpness);
    fields.take("gain", v.gain);
    fields.take("lid", v.lid);
    fields.take("bared", v.bared);
    fields.take("crease", v.crease);
    fields.take("shut", v.shut);
    fields.take("turn", v.turn);
    fields.take("crisp", v.crisp);
    fields.take("gaze", v.gaze);
    fields.take("layered", v.layered);
    fields.take("hair", v.hair);
    fields.take("shadow", v.shadow);
    fields.take("reach_up", v.reach_up);
    fields.take("reach_down", v.reach_down);
    fields.finish();
    return v;
}

void draw_eye(U8& image, int left, int top, int right, int bottom, const F32& texture, const F32& curves,
              const F32& strip, const EyeView& view) {
    const Image pixels = image_of(image);
    const Plane layers = plane_of(texture), hairs = plane_of(strip);
    const float* lids = curves.data();
    py::gil_scoped_release release;
    ditto::draw_eye(pixels, Box{left, top, right, bottom}, layers, lids, hairs, view);
}

MouthScene make_scene(const py::kwargs& given) {
    MouthScene s;
    Fields fields("MouthScene", given);
    fields.take("x_from_px", s.x_from_px);
    fields.take("y_from_px", s.y_from_px);
    fields.take("left", s.left);
    fields.take("columns_per_unit", s.columns_per_unit);
    fields.take("edge_px", s.edge_px);
    fields.take("teeth_per_unit", s.teeth_per_unit);
    fields.take("cavity", s.cavity);
    fields.take("tongue", s.tongue);
    fields.take("tongue_middle", s.tongue_middle);
    fields.take("tongue_back", s.tongue_back);
    fields.take("tongue_tip", s.tongue_tip);
    fields.take("tongue_half_width", s.tongue_half_width);
    fields.take("tongue_light", s.tongue_light);
    fields.take("widest", s.widest);
    fields.take("own_shade", s.own_shade);
    fields.take("own_column", s.own_column);
    fields.take("own_row", s.own_row);
    fields.take("upper_shadow", s.upper_shadow);
    fields.take("upper_reach", s.upper_reach);
    fields.take("lower_shadow", s.lower_shadow);
    fields.take("lower_reach", s.lower_reach);
    fields.take("lower_roll_shade", s.lower_roll_shade);
    fields.take("upper_roll_shade", s.upper_roll_shade);
    fields.take("grain", s.grain);
    fields.take("grain_per_unit", s.grain_per_unit);
    fields.take("tint", s.tint);
    fields.finish();
    return s;
}

void paint_mouth(U8& image, int left, int top, int right, int bottom, const F32& columns, const MouthScene& scene,
                 const F32& upper, const F32& lower, const F32& own, const F32& grain) {
    const Image pixels = image_of(image);
    const ditto::Teeth teeth{plane_of(upper), plane_of(lower), plane_of(own)};
    const Plane across = plane_of(columns), noise = plane_of(grain);
    py::gil_scoped_release release;
    ditto::paint_mouth(pixels, Box{left, top, right, bottom}, across.data, across.height, scene, teeth, noise);
}

void smooth_corner(U8& image, int left, int top, int right, int bottom, float x, float y, float outwards_x,
                   float outwards_y, float scale, float amount, float reach, float half) {
    const Image pixels = image_of(image);
    py::gil_scoped_release release;
    ditto::smooth_corner(pixels, Box{left, top, right, bottom}, {x, y, outwards_x, outwards_y, scale, amount, reach, half});
}

// picture (H, W, C), source and rendered (S, S, C), C 1 or 3, ramp (2, S), to_crop (2, 3), the part of the picture the crop
// touches, detail (height, width, C) or empty, reduce -> frame (H, W, C).
U8 paste_back(const U8& picture, const U8& source, const U8& rendered, const F32& ramp, const F64& to_crop, int x, int y,
              int width, int height, const I16& detail, int reduce) {
    U8 frame({picture.shape(0), picture.shape(1), picture.shape(2)});
    const ditto::Paste paste{size_of(picture, 2), picture.data(), size_of(picture, 0), size_of(picture, 1), source.data(), size_of(rendered, 0),
                             ramp.data(),    to_crop.data(),      x,                   y,             width,
                             height,         detail.size() ? detail.data() : nullptr,  reduce};
    const uint8_t* crop = rendered.data();
    uint8_t* out = frame.mutable_data();
    py::gil_scoped_release release;
    ditto::PasteWorkspace work;
    ditto::paste_back(paste, crop, work, out);
    return frame;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "ditto's CPU kernels and the core of the lite renderer; call kernels through ditto.ops";
    m.def("warp", &warp, py::arg("texture"), py::kw_only(), py::arg("triangles"), py::arg("destination"), py::arg("source"),
          py::arg("lanes") = 0);
    m.def("carry", &carry, py::arg("plane"), py::kw_only(), py::arg("flat"), py::arg("map"), py::arg("pixels"),
          py::arg("places"), py::arg("weights"));
    m.def("composite", &composite, py::arg("image").noconvert(), py::kw_only(), py::arg("alpha"), py::arg("plate"),
          py::arg("gate"));
    py::class_<EyeView>(m, "EyeView").def(py::init(&make_view));
    m.def("draw_eye", &draw_eye, py::arg("image").noconvert(), py::kw_only(), py::arg("left"), py::arg("top"),
          py::arg("right"), py::arg("bottom"), py::arg("texture"), py::arg("curves"), py::arg("strip"), py::arg("view"));
    py::class_<MouthScene>(m, "MouthScene").def(py::init(&make_scene));
    m.def("paint_mouth", &paint_mouth, py::arg("image").noconvert(), py::kw_only(), py::arg("left"), py::arg("top"),
          py::arg("right"), py::arg("bottom"), py::arg("columns"), py::arg("scene"), py::arg("upper"), py::arg("lower"),
          py::arg("own"), py::arg("grain"));
    m.def("smooth_corner", &smooth_corner, py::arg("image").noconvert(), py::kw_only(), py::arg("left"), py::arg("top"),
          py::arg("right"), py::arg("bottom"), py::arg("x"), py::arg("y"), py::arg("outwards_x"), py::arg("outwards_y"),
          py::arg("scale"), py::arg("amount"), py::arg("reach"), py::arg("half"));
    m.def("paste_back", &paste_back, py::arg("picture"), py::kw_only(), py::arg("source"), py::arg("rendered"),
          py::arg("ramp"), py::arg("to_crop"), py::arg("x"), py::arg("y"), py::arg("width"), py::arg("height"),
          py::arg("detail"), py::arg("reduce"));
    bind_core(m);
}
