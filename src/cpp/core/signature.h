// What tells two calls of an op apart, in bytes: the key under which Python keeps the verdict on a call's
// arguments.
#pragma once

#include <nanobind/nanobind.h>

namespace rvc_fast {

// The arguments' signature: of an array its shape and dtype, of a packed weight its `form`, of a number or a
// word its type and value, of a tuple or list what it holds; before them whatever decides the route:
// RVC_FAST_BACKEND, the default device of this thread, and whether any of the arrays is being transformed or
// compiled (the last byte of the key). None if an argument is of another kind.
nanobind::object signature(nanobind::handle arguments);

// Whether a transformation or `mx.compile` is at work and a signature says so.
constexpr char kTraced = 't', kPlain = 'p';

}  // namespace rvc_fast
