// One module, one bind function per kernel file. Every argument but the first is passed by name. The functions in
// ditto/ops check shapes and types before they call a kernel; ditto/_native.pyi has the signatures.
#include <pybind11/pybind11.h>

namespace py = pybind11;

void bind_warp(py::module_&);
void bind_composite(py::module_&);
void bind_mouth(py::module_&);
void bind_eyes(py::module_&);
void bind_paste_back(py::module_&);

PYBIND11_MODULE(_native, m) {
    m.doc() = "ditto's CPU kernels; call them through ditto.ops";
    bind_warp(m);
    bind_composite(m);
    bind_mouth(m);
    bind_eyes(m);
    bind_paste_back(m);
}
