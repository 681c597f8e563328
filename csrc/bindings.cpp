// One module, one bind function per kernel file. Kernels take raw pointers and shapes; the Python doors in ditto/ops
// check shapes and types.
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
