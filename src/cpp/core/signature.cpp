#include "core/signature.h"

#include <cstdlib>
#include <cstring>
#include <string>

#include "mlx/array.h"
#include "mlx/device.h"

namespace nb = nanobind;
namespace mx = mlx::core;

namespace rvc_fast {
namespace {

class Writer {
 public:
  // False if `x` is of a kind whose signature is not known.
  bool add(PyObject* x) {
    PyTypeObject* type = Py_TYPE(x);
    if (type == array_type()) return add_array(*nb::inst_ptr<mx::array>(x));
    if (x == Py_None) return tag('n');
    if (PyBool_Check(x)) return tag(x == Py_True ? 'T' : 'F');
    if (PyLong_Check(x)) {
      int overflow = 0;
      const long long value = PyLong_AsLongLongAndOverflow(x, &overflow);
      return overflow == 0 && tag('i') && number(value);
    }
    if (PyFloat_Check(x)) return tag('f') && number(PyFloat_AS_DOUBLE(x));
    if (PyUnicode_Check(x)) {
      Py_ssize_t size = 0;
      const char* text = PyUnicode_AsUTF8AndSize(x, &size);
      if (!text) PyErr_Clear();
      return text && tag('s') && bytes(text, size);
    }
    if (PyTuple_Check(x)) return add_items(&PyTuple_GET_ITEM(x, 0), PyTuple_GET_SIZE(x), '(');
    if (PyList_Check(x)) {
      const Py_ssize_t size = PyList_GET_SIZE(x);
      return tag('[') && number(size) && each(size, [&](Py_ssize_t i) { return PyList_GET_ITEM(x, i); });
    }
    return add_packed(x);
  }

  bool add_state() {
    const char* backend = std::getenv("RVC_FAST_BACKEND");
    const mx::Device& device = mx::default_device();
    return (backend ? bytes(backend, std::strlen(backend)) : tag('n')) && number(int(device.type)) &&
           number(device.index);
  }

  bool add_items(PyObject** items, Py_ssize_t size, char kind) {
    return tag(kind) && number(size) && each(size, [&](Py_ssize_t i) { return items[i]; });
  }

  nb::object key() {
    tag(traced_ ? kTraced : kPlain);
    return nb::steal(PyBytes_FromStringAndSize(key_.data(), static_cast<Py_ssize_t>(key_.size())));
  }

 private:
  // Keeps its memory from call to call.
  static std::string& buffer() {
    static thread_local std::string key;
    key.clear();
    return key;
  }

  static PyTypeObject* array_type() {
    static auto* type = reinterpret_cast<PyTypeObject*>(nb::type<mx::array>().ptr());
    return type;
  }

  bool add_array(const mx::array& x) {
    traced_ = traced_ || x.is_tracer();
    tag('a');
    tag(static_cast<char>(x.dtype().val()));
    number(int(x.ndim()));
    for (auto side : x.shape()) number(side);
    return true;
  }

  bool add_packed(PyObject* x) {
    static PyObject* const form_name = PyUnicode_InternFromString("form");
    static PyObject* const data_name = PyUnicode_InternFromString("data");
    nb::object form = nb::steal(PyObject_GetAttr(x, form_name));
    nb::object data = form.is_valid() ? nb::steal(PyObject_GetAttr(x, data_name)) : nb::object();
    if (!data.is_valid()) {
      PyErr_Clear();
      return false;
    }
    if (!PyBytes_Check(form.ptr()) || Py_TYPE(data.ptr()) != array_type()) return false;
    traced_ = traced_ || nb::inst_ptr<mx::array>(data)->is_tracer();
    return tag('w') && bytes(PyBytes_AS_STRING(form.ptr()), PyBytes_GET_SIZE(form.ptr()));
  }

  template <class Item>
  bool each(Py_ssize_t size, Item item) {
    for (Py_ssize_t i = 0; i < size; ++i) {
      if (!add(item(i))) return false;
    }
    return true;
  }

  bool tag(char c) {
    key_ += c;
    return true;
  }

  template <class T>
  bool number(T value) {
    key_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return true;
  }

  bool bytes(const char* text, size_t size) {
    number(size);
    key_.append(text, size);
    return true;
  }

  std::string& key_ = buffer();
  bool traced_ = false;
};

}  // namespace

nb::object signature(nb::handle arguments) {
  if (!PyTuple_Check(arguments.ptr())) return nb::none();
  Writer writer;
  writer.add_state();
  return writer.add(arguments.ptr()) ? writer.key() : nb::none();
}

}  // namespace rvc_fast
