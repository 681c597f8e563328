// The core for Python: ditto/lite/rendering/core.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/core.h"
#include "cpu/kernels.h"

namespace py = pybind11;

namespace {

using U8 = py::array_t<uint8_t, py::array::c_style>;
using F32 = py::array_t<float, py::array::c_style>;
using Row = py::array_t<float, py::array::c_style | py::array::forcecast>;

constexpr py::ssize_t kMotionSize = 70;

// A core and as many workspaces as threads have drawn with it at once.
class SharedCore {
public:
    explicit SharedCore(const py::buffer& blob) {
        const py::buffer_info bytes = bytes_of(blob);
        std::string error;
        {
            py::gil_scoped_release release;
            core_ = ditto::Core::open(bytes.ptr, static_cast<size_t>(bytes.size), &error);
        }
        if (!core_) throw py::value_error(error);
    }

    static std::unique_ptr<SharedCore> unpack(const py::buffer& model, const py::buffer& numbers, const std::optional<U8>& picture,
                                              const U8& crop, const U8& plate) {
        const py::buffer_info m = bytes_of(model), n = bytes_of(numbers);
        const ditto::Picture whole = picture ? picture_of(*picture) : ditto::Picture{nullptr, 0, 0, 3}, small = picture_of(crop), behind = picture_of(plate);
        std::string error;
        std::unique_ptr<ditto::Core> core;
        {
            py::gil_scoped_release release;
            core = ditto::Core::unpack(m.ptr, static_cast<size_t>(m.size), n.ptr, static_cast<size_t>(n.size), whole, small, behind, &error);
        }
        if (!core) throw py::value_error(error);
        return std::unique_ptr<SharedCore>(new SharedCore(std::move(core)));
    }

    int size() const { return core_->size(); }

    U8 crop(const Row& motion) { return frame(motion, true, false).first; }
    U8 picture(const Row& motion) { return frame(motion, false, true).second; }
    std::pair<U8, U8> both(const Row& motion) { return frame(motion, true, true); }

    std::pair<U8, U8> with_plane(const Row& motion, const U8& plane, const U8& flat, const U8& plate) {
        const py::ssize_t size = core_->size();
        for (const U8* given : {&plane, &flat, &plate})
            if (given->ndim() != 2 || given->shape(0) != size || given->shape(1) != size)
                throw py::value_error("expected planes as large as the crop, got others; sample them at the crop");
        U8 out({size, size});
        const ditto::Carried carried{plane.data(), flat.data(), plate.data(), out.mutable_data()};
        U8 crop = frame(motion, true, false, &carried).first;
        return {crop, out};
    }

    F32 vertices(const Row& motion) {
        const float* row = checked(motion);
        F32 positions({static_cast<py::ssize_t>(core_->vertices()), static_cast<py::ssize_t>(2)});
        float* out = positions.mutable_data();
        ditto::Status status;
        {
            py::gil_scoped_release release;
            std::unique_ptr<ditto::Workspace> work = take();
            status = core_->place(row, *work, out);
            give(std::move(work));
        }
        expect_drawn(status);
        return positions;
    }

private:
    explicit SharedCore(std::unique_ptr<ditto::Core> core) : core_(std::move(core)) {}

    static py::buffer_info bytes_of(const py::buffer& buffer) {
        py::buffer_info bytes = buffer.request();
        if (bytes.ndim != 1 || bytes.itemsize != 1 || (bytes.size > 1 && bytes.strides[0] != 1))
            throw py::value_error("expected a blob as bytes, got another buffer; give bytes");
        return bytes;
    }

    static ditto::Picture picture_of(const U8& pixels) {
        if (pixels.ndim() != 3 || pixels.shape(0) > 32768 || pixels.shape(1) > 32768 || pixels.shape(2) > 4)
            throw py::value_error("expected a picture (H, W, 3) of up to 32768 x 32768, got another array; decode it first");
        return {pixels.data(), static_cast<int>(pixels.shape(0)), static_cast<int>(pixels.shape(1)), static_cast<int>(pixels.shape(2))};
    }

    std::pair<U8, U8> frame(const Row& motion, bool with_crop, bool with_picture,
                            const ditto::Carried* carried = nullptr) {
        const float* row = checked(motion);
        std::pair<U8, U8> out;
        if (with_crop) out.first = U8({core_->size(), core_->size(), 3});
        if (with_picture) out.second = U8({core_->picture_height(), core_->picture_width(), 3});
        uint8_t* crop = with_crop ? out.first.mutable_data() : nullptr;
        uint8_t* picture = with_picture ? out.second.mutable_data() : nullptr;
        ditto::Status status;
        {
            py::gil_scoped_release release;
            std::unique_ptr<ditto::Workspace> work = take();
            status = core_->frame(row, *work, crop, picture, carried);
            give(std::move(work));
        }
        expect_drawn(status);
        return out;
    }

    static const float* checked(const Row& motion) {
        if (motion.ndim() != 1 || motion.shape(0) != kMotionSize)
            throw py::value_error("expected one frame of motion (70,), got " + std::to_string(motion.size()) +
                                  " numbers in " + std::to_string(motion.ndim()) + " dimensions; index the motion first");
        return motion.data();
    }

    static void expect_drawn(ditto::Status status) {
        switch (status) {
            case ditto::Status::kDrawn: return;
            case ditto::Status::kNoPicture:
                throw py::value_error("expected a blob with a picture, got one without; make it with the picture");
            case ditto::Status::kNoMemory: throw std::bad_alloc();
            case ditto::Status::kUnusableNumbers: break;
        }
        throw py::value_error("expected finite numbers that lead to a face near the picture, got others; check where the motion comes from");
    }

    std::unique_ptr<ditto::Workspace> take() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (idle_.empty()) return std::make_unique<ditto::Workspace>();
        std::unique_ptr<ditto::Workspace> work = std::move(idle_.back());
        idle_.pop_back();
        return work;
    }

    void give(std::unique_ptr<ditto::Workspace> work) {
        const std::lock_guard<std::mutex> lock(mutex_);
        idle_.push_back(std::move(work));
    }

    std::unique_ptr<ditto::Core> core_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<ditto::Workspace>> idle_;
};

}  // namespace

void bind_core(py::module_& m) {
    py::class_<SharedCore>(m, "Core")
        .def(py::init<const py::buffer&>(), py::arg("blob"))
        .def_static("unpack", &SharedCore::unpack, py::arg("model"), py::arg("numbers"), py::arg("picture").none(true), py::arg("crop"),
                    py::arg("plate"))
        .def_property_readonly("size", &SharedCore::size)
        .def("crop", &SharedCore::crop, py::arg("motion"))
        .def("with_plane", &SharedCore::with_plane, py::arg("motion"), py::arg("plane"), py::arg("flat"), py::arg("plate"))
        .def("picture", &SharedCore::picture, py::arg("motion"))
        .def("frame", &SharedCore::both, py::arg("motion"))
        .def("vertices", &SharedCore::vertices, py::arg("motion"));
}
