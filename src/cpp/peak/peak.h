// What this machine reaches at most, for benchmarks: multiply-adds and memory traffic.
#pragma once

#include <cstddef>
#include <string>

namespace rvc_fast {

// Floating-point operations per second of multiply-adds in a format of conv/format.h, on all threads. Throws
// std::invalid_argument if the instruction set in use does not multiply in it.
double fma_peak(const std::string& dtype);

// Operations per second (a multiply-add is two) of 8-bit integers with 32-bit sums, on all threads, by
// AMX-INT8, AVX512-VNNI, AVX-VNNI or NEON's dot product, whichever there is first; 0 without.
double int8_peak();

// Bytes per second on all threads over `bytes` of memory: "read" adds it up; "copy" writes one half from the
// other, counted as read once and written once. Throws std::invalid_argument for another kind or less than a
// page per thread.
double memory_peak(const std::string& kind, size_t bytes);

}  // namespace rvc_fast
