"""Sound files <-> arrays: by libsndfile (wav, flac, ogg, mp3, ...), else by ffmpeg if it is installed."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .. import writing
from ..errors import FileFormatError, InputError
from ..filekinds import stranger
from ..workers import workers
from .claims import Claim, read_claim
from .process import check_values

_BLOCK = 1 << 16
LOWEST_RATE, HIGHEST_RATE = 1000, 768_000
"""Hz: what a file may be sampled at, as `sample_rate=` of samples."""
# libsndfile's name of the format, by suffix; every other suffix goes through ffmpeg.
_FORMATS = {
    ".wav": "WAV",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".mp3": "MP3",
    ".aif": "AIFF",
    ".aiff": "AIFF",
    ".au": "AU",
    ".caf": "CAF",
    ".w64": "W64",
}


def read_audio(path: str | os.PathLike[str], *, strict: bool = False) -> tuple[np.ndarray, int]:
    """Return (samples (n, channels) float32, full scale 1.0; rate in Hz) of a sound file; "-" reads stdin.

    A file that ends before its header says so, or whose header does not say, is read as far as it goes with one
    warning; `strict` refuses it. InputError if it cannot be opened or has no samples, or some that are no sound;
    FileFormatError if it is no sound, or of a rate that no sound has.
    """
    samples, rate, channels = _read(path, False, strict)
    return samples.reshape(-1, channels), rate


def read_mono(path: str | os.PathLike[str], *, strict: bool = False) -> tuple[np.ndarray, int]:
    """Return (mean of the channels (n,) float32, rate in Hz): `read_audio` that holds only the mean."""
    samples, rate, _ = _read(path, True, strict)
    return samples, rate


def _read(path: str | os.PathLike[str], mono: bool, strict: bool) -> tuple[np.ndarray, int, int]:
    name = "stdin" if os.fspath(path) == "-" else os.fspath(path)
    # A bytearray grows in place, so a long sound is never held twice, whatever length its header claims.
    data = bytearray()
    with _open(path, name) as (sound, claim):
        rate, channels = int(sound.samplerate), int(sound.channels)
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise FileFormatError(
                f"[audio] {name} must have a sample rate from {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {rate}"
            )
        for block in _blocks(sound, name):
            check_values(f"[audio] {name}: samples", block)
            data += (block.mean(axis=1) if mono else block).tobytes()
    if not data:
        raise InputError(f"[audio] {name} has no samples")
    missing = _missing(claim, len(data) // (4 if mono else 4 * channels), rate)
    if missing is not None and strict:
        raise FileFormatError(f"[audio] {name} {missing}")
    if missing is not None:
        warnings.warn(f"rvc_fast: {name} {missing}; what is there is taken", UserWarning, stacklevel=4)
    return np.frombuffer(data, np.float32), rate, channels


def _missing(claim: Claim, frames: int, rate: int) -> str | None:
    """Say what a sound lacks of what its header promises; None if nothing."""
    if claim.open_end:
        return (
            f"does not say how long it is: how much is missing after its {frames / rate:.2f} s cannot be told"
        )
    if claim.frames is None or frames >= claim.frames:
        return None
    lost = claim.frames - frames
    return (
        f"is cut short: {lost / rate:.2f} of its {claim.frames / rate:.2f} s are missing "
        f"({100 * lost / claim.frames:.0f} %)"
    )


def _blocks(sound: Any, name: str) -> Iterator[np.ndarray]:
    import soundfile

    while True:
        try:
            block = sound.read(max(1, _BLOCK // sound.channels), dtype="float32", always_2d=True)
        except soundfile.SoundFileError as e:
            raise FileFormatError(f"[audio] {name} is damaged: {_reason(e)}") from e
        if len(block) == 0:
            return
        yield block


@contextmanager
def _open(path: str | os.PathLike[str], name: str) -> Iterator[Any]:
    """Yield (open soundfile.SoundFile, what its header claims) of `path`; by ffmpeg if libsndfile cannot."""
    import soundfile

    try:
        stream = _stream(path)
    except OSError as e:
        raise InputError(f"[audio] cannot read {name}: {_reason(e)}") from e
    with stream:
        try:
            size = stream.seek(0, os.SEEK_END)
            claim = read_claim(stream)
        except OSError as e:
            raise InputError(f"[audio] cannot read {name}: {_reason(e)}") from e
        if size == 0:
            raise FileFormatError(f"[audio] {name} is empty (0 bytes)")
        read = _Nameless(stream, claim.patches)
        try:
            sound = soundfile.SoundFile(read)
        except soundfile.SoundFileError as e:
            _check_read(read, name)
            stream.seek(0)
            what = stranger(stream.read(1024))
            if what is not None and "sound" not in what:
                raise FileFormatError(f"[audio] cannot read {name}: {what}") from e
            # libsndfile says so of an MP3 that it cannot make sense of.
            reason = "it is damaged" if "does not exist" in _reason(e) else _reason(e)
            with _decoded(stream, name, reason) as sound:
                yield sound, Claim()
            return
        if isinstance(stream, io.BytesIO) and not claim.patches:
            claim = replace(claim, open_end=False)  # a pipe, whose writer cannot go back to the header
        if sound.format == "MP3" and claim.frames is not None:
            claim = Claim(sound.frames)  # the same count, without the encoder's padding
        with sound:
            yield sound, claim
        _check_read(read, name)


def _check_read(read: _Nameless, name: str) -> None:
    """InputError if the system failed while libsndfile read."""
    if read.error is not None:
        raise InputError(f"[audio] cannot read {name}: {_reason(read.error)}") from read.error


def _stream(path: str | os.PathLike[str]) -> io.BufferedIOBase:
    """Return `path` opened; what cannot be sought in, as a pipe, is read into memory."""
    if os.fspath(path) == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, "it is closed")
        return io.BytesIO(sys.stdin.buffer.read())
    if Path(path).is_fifo():
        return io.BytesIO(Path(path).read_bytes())
    return Path(path).open("rb")


class _Nameless:
    """A stream without a name: libsndfile then goes by the content, never by the suffix.

    `patches` are bytes that are read at these places instead of the stream's. Nothing is raised: libsndfile calls back,
    and Python would print the traceback and go on. `error` is the first one of the system.
    """

    def __init__(self, stream: io.BufferedIOBase, patches: dict[int, bytes]):
        self._stream, self._patches = stream, patches
        self.tell = stream.tell
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._stream.seek(offset, whence)
        except (OSError, ValueError):
            # A damaged file leads to a place before its beginning; libsndfile asks `tell` whether it got there.
            return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        begin = self._stream.tell()
        try:
            count = self._stream.readinto(buffer)
        except OSError as e:
            self.error = self.error or e
            return 0
        for place, data in self._patches.items():
            for at, byte in enumerate(data, place - begin):
                if 0 <= at < count:
                    memoryview(buffer).cast("B")[at] = byte
        return count

    def read(self, count: int) -> bytes:
        buffer = bytearray(count)
        return bytes(buffer[: self.readinto(buffer)])


@contextmanager
def _decoded(stream: io.BufferedIOBase, name: str, reason: str) -> Iterator[Any]:
    """Yield what ffmpeg makes of `stream`, as a temporary float WAV."""
    import soundfile

    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise FileFormatError(
            f"[audio] cannot read {name}: {reason} (install ffmpeg to read m4a, aac and other formats)"
        )
    with writing.scratch() as folder:
        source, wav = folder / "source", folder / "sound.wav"
        with source.open("wb") as copy:
            stream.seek(0)
            shutil.copyfileobj(stream, copy)
        # Only local files: a playlist must not make ffmpeg fetch anything.
        source_options = ["-protocol_whitelist", "file", "-i", f"file:{source}"]
        wav_options = ["-vn", "-c:a", "pcm_f32le", "-rf64", "auto", "-f", "wav", f"file:{wav}"]
        _ffmpeg(ffmpeg, [*source_options, *wav_options], "read", name)
        try:
            sound = soundfile.SoundFile(wav)
        except soundfile.SoundFileError as e:
            raise FileFormatError(f"[audio] cannot read {name}: {_reason(e)}") from e
        with sound:
            yield sound


def _ffmpeg(ffmpeg: str, arguments: list[str], doing: str, name: str) -> None:
    """Run ffmpeg to read or write `name`; what it says of our temporary files it says of that."""
    run = subprocess.run(
        [ffmpeg, "-nostdin", "-v", "error", "-y", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    if run.returncode != 0:
        said = (run.stderr.decode(errors="replace").strip().splitlines() or [repr(run.returncode)])[-1]
        for file in (a for a in arguments if a.startswith("file:")):
            said = said.replace(file, name).replace(file.removeprefix("file:"), name)
        raise FileFormatError(f"[audio] cannot {doing} {name}: ffmpeg says {said}")


def write_audio(
    path: str | os.PathLike[str], samples: np.ndarray, rate: int, *, subtype: str | None = None
) -> None:
    """Write samples (n,) or (n, channels), full scale 1.0, at `rate` Hz; the suffix gives the format.

    `subtype` is libsndfile's ("PCM_24", "FLOAT", ...); None is the format's usual one, 16 bits for wav.
    "-" writes WAV to stdout, and a device or pipe is written into. A file appears whole or not at all, and only where
    `writing.check` allows it. InputError if that fails, if the format cannot hold the rate, and if there are no
    samples or some are NaN, infinite or louder than `process.LOUDEST`.
    """
    samples = np.asarray(samples, np.float32)
    if samples.ndim not in (1, 2) or 0 in samples.shape:
        raise InputError(
            f"[audio] samples must be (n,) or (n, channels), not empty, got shape {samples.shape}"
        )
    check_values("[audio] samples", samples)
    if os.fspath(path) == "-":
        if sys.stdout is None:
            raise InputError("[audio] cannot write stdout: it is closed")
        _write_stream(sys.stdout.buffer, "stdout", samples, rate, "WAV", subtype)
        return
    suffix = _suffix(path)
    if _is_special(path):
        try:
            with Path(path).open("wb") as device:
                _write_stream(device, str(path), samples, rate, _FORMATS.get(suffix, "WAV"), subtype)
        except OSError as e:
            raise InputError(f"[audio] cannot write {path}: {_reason(e)}") from e
        return
    with writing.replacing(path, "audio", suffix=suffix) as (file, name):
        if suffix in _FORMATS:
            _encode(file, str(path), samples, rate, _FORMATS[suffix], subtype)
        else:
            _encode_by_ffmpeg(name, str(path), samples, rate, suffix, subtype)


def check_writable(
    path: writing.Name,
    sources: writing.Sources = (),
    *,
    result_of: writing.Name | None = None,
    named: bool = True,
) -> None:
    """Raise the InputError that `write_audio` would raise later, before there is anything to write.

    `sources` and `result_of` are those of `writing.check`. Into a device or pipe is written only if it was `named`.
    """
    if os.fspath(path) == "-":
        return
    _suffix(path)
    if not (named and _is_special(path)):
        writing.check(path, "audio", sources, result_of)
        writing.check_folder(path, "audio")


def _is_special(path: str | os.PathLike[str]) -> bool:
    """Whether this is a device, pipe or socket: it is written into and stays what it is."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _suffix(path: str | os.PathLike[str]) -> str:
    """Return the suffix, which must be one that can be written."""
    suffix = Path(path).suffix.lower()
    if not suffix:
        raise InputError(f"[audio] cannot write {path}: the name needs a suffix such as .wav")
    if suffix not in _FORMATS and (len(suffix) > 16 or shutil.which("ffmpeg") is None):
        raise InputError(
            f"[audio] cannot write {path}: {suffix} needs ffmpeg; without it: {', '.join(_FORMATS)}"
        )
    return suffix


class _Kept:
    """A stream that libsndfile writes to, which keeps the first error: libsndfile forgets those of its last bytes."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.read, self.tell = stream.read, stream.tell
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._try(self._stream.write, data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._try(self._stream.seek, offset, whence)

    def _try(self, function: Callable[..., int], *arguments: Any) -> int:
        if self.error is None:
            try:
                return function(*arguments)
            except OSError as e:
                self.error = e
        return 0


def _encode(
    stream: BinaryIO, name: str, samples: np.ndarray, rate: int, kind: str, subtype: str | None
) -> None:
    """Encode into a stream that can be sought in; InputError if the format cannot hold it or the system fails."""
    import soundfile

    channels = 1 if samples.ndim == 1 else samples.shape[1]
    kept = _Kept(stream)
    interrupted = False

    def work() -> None:
        with soundfile.SoundFile(kept, "w", rate, channels, subtype, format=kind) as sound:
            # In blocks: libsndfile's Vorbis encoder overflows its stack on long ones.
            for start in range(0, len(samples), _BLOCK):
                if interrupted or kept.error is not None:
                    break
                block = samples[start : start + _BLOCK]
                if sound.subtype == "PCM_16":
                    # libsndfile would round down, which takes the loudest sample beyond its limit.
                    block = np.rint(block * np.float32(32768)).clip(-32768, 32767).astype(np.int16)
                sound.write(block)

    # In a thread of its own: libsndfile calls back for every write, and Ctrl-C thrown into that would be lost.
    with workers(1) as pool:
        try:
            pool.submit(work).result()
        except (soundfile.SoundFileError, ValueError, AssertionError) as e:
            if kept.error is None:
                hint = " (ask for another output rate, such as 44100)" if "sample rate" in str(e) else ""
                raise InputError(f"[audio] cannot write {name}: {_reason(e)}{hint}") from e
        except BaseException:
            interrupted = True
            raise
    if kept.error is not None:
        raise InputError(f"[audio] cannot write {name}: {_reason(kept.error)}") from kept.error


def _encode_by_ffmpeg(
    target: Path, name: str, samples: np.ndarray, rate: int, suffix: str, subtype: str | None
) -> None:
    ffmpeg = shutil.which("ffmpeg")
    assert ffmpeg is not None  # `_suffix` has looked
    with writing.scratch() as folder:
        wav = folder / "sound.wav"
        with wav.open("w+b") as file:
            _encode(file, name, samples, rate, "WAV", subtype or "FLOAT")
        _ffmpeg(ffmpeg, ["-i", f"file:{wav}", f"file:{target}"], "write", name)


def _write_stream(
    stream: BinaryIO, name: str, samples: np.ndarray, rate: int, kind: str, subtype: str | None
) -> None:
    # Encoded in memory: a WAV header is finished by seeking back, which a pipe cannot do.
    buffer = io.BytesIO()
    _encode(buffer, name, samples, rate, kind, subtype)
    try:
        stream.write(buffer.getbuffer())
        stream.flush()
    except OSError as e:
        raise InputError(f"[audio] cannot write {name}: {_reason(e)}") from e


def _reason(error: Exception) -> str:
    """The system's or libsndfile's own words, without the file's name in front."""
    return str(getattr(error, "error_string", "")).rstrip(".") or writing.reason(error)
