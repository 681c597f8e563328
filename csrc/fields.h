// A struct that Python fills by name. One `take` for each field, then `finish`: a missing name, an unknown one, a wrong
// number of values or one that is not finite is a Python error that names the struct and the field.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

class Fields {
public:
    Fields(const char* owner, const pybind11::kwargs& given) : owner_(owner), given_(given) {}

    void take(const char* name, float& field) { read(name, &field, 1); }

    template <size_t count>
    void take(const char* name, float (&field)[count]) { read(name, field, count); }

    void finish() const {
        if (given_.size() == taken_.size()) return;
        for (const auto& item : given_) {
            const std::string name = pybind11::str(item.first);
            if (std::find(taken_.begin(), taken_.end(), name) == taken_.end())
                throw pybind11::type_error("expected only fields of " + std::string(owner_) + ", got " + name + "; leave it out");
        }
    }

private:
    using Doubles = pybind11::array_t<double, pybind11::array::c_style | pybind11::array::forcecast>;

    std::string full(const char* name) const { return std::string(owner_) + "." + name; }

    void read(const char* name, float* field, size_t count) {
        PyObject* value = PyDict_GetItemString(given_.ptr(), name);
        if (!value) throw pybind11::type_error("expected a value for " + full(name) + ", got none; give it by name");
        taken_.push_back(name);
        if (PyFloat_Check(value)) {
            const double number = PyFloat_AS_DOUBLE(value);
            return set(name, field, count, &number, 1);
        }
        const auto numbers = Doubles::ensure(value);
        if (!numbers) throw pybind11::type_error("expected numbers for " + full(name) + ", got another type; give floats");
        set(name, field, count, numbers.data(), static_cast<size_t>(numbers.size()));
    }

    void set(const char* name, float* field, size_t count, const double* numbers, size_t given) const {
        if (given != count)
            throw pybind11::value_error("expected " + std::to_string(count) + " values for " + full(name) + ", got " +
                                        std::to_string(given) + "; give one for each");
        for (size_t i = 0; i < count; ++i) {
            field[i] = static_cast<float>(numbers[i]);
            if (!std::isfinite(field[i]))
                throw pybind11::value_error("expected finite numbers for " + full(name) + ", got NaN or infinity; check its source");
        }
    }

    const char* owner_;
    const pybind11::kwargs& given_;
    std::vector<const char*> taken_;
};
