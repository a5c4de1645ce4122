// mel_stft: log mel spectrogram of frames of a sound.
#pragma once

#include "core/primitive.h"

namespace rvc_fast {

// x (n,), window (n_fft,), filters (mels, n_fft / 2 + 1); returns ((n - n_fft) / hop + 1, mels).
mx::array mel_stft(const mx::array& x, const mx::array& window, const mx::array& filters, int hop,
                   float floor, mx::StreamOrDevice s);

}  // namespace rvc_fast
