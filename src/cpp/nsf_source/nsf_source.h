// nsf_source: sines at f0 and its harmonics plus noise, merged into one excitation.
#pragma once

#include <optional>
#include <vector>

#include "core/primitive.h"

namespace rvc_fast {

// f0 (B, T) Hz, noise (B, T * hop, H), weight (H,), bias (1,), offsets (B, H) cycles; phase: cycles of the
// fundamental before the first sample, of size 1 or B. interpolation is "nearest" or "linear", accumulation
// "frame" or "sample". Returns (B, T * hop, 1).
mx::array nsf_source(const mx::array& f0, const mx::array& noise, const mx::array& weight,
                     const std::optional<mx::array>& bias, const std::optional<mx::array>& offsets, int hop,
                     int sample_rate, const std::vector<double>& phase, const std::string& interpolation,
                     const std::string& accumulation, mx::StreamOrDevice s);

}  // namespace rvc_fast
