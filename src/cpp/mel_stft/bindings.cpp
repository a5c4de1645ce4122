#include "core/bindings.h"

#include "mel_stft/mel_stft.h"

namespace rvc_fast {

void bind_mel_stft(nb::module_& m) {
  m.def("mel_stft", &mel_stft, "x"_a, "window"_a, "filters"_a, "hop"_a, "floor"_a = 1e-5f, "stream"_a = kCpu);
}

}  // namespace rvc_fast
