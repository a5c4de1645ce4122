"""What a file is that is not what was asked for, told by its first bytes, and what to do about it."""

from __future__ import annotations

import re

_MAGIC = (
    (
        rb"version https://git-lfs",
        "it is a Git LFS pointer, not the file itself: download that (git lfs pull)",
    ),
    (
        rb"\s*(<!doctype|<html|<head|<\?xml|<!--)",
        "it is a web page: the download went wrong; open the link in a browser and save the file itself",
    ),
    # protobuf: the version of the format, then one of the other fields of a model.
    (
        rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]",
        "it is an ONNX export, which is not read: use the .pth that it was made from",
    ),
    (
        rb"(I[xwv]F[2lIL]|I[A-Za-z][A-Za-z0-9]{2}[\x01-\xff].\x00\x00)",
        "it is a faiss index: give it as the index",
    ),
    (
        rb"(\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd)",
        "it is a compressed archive: unpack it and give the file in it",
    ),
    (rb"(PK\x03\x04|PK\x05\x06)", "it is a zip archive or a PyTorch checkpoint"),
    (
        rb"(RIFF....WAVE|RF64....WAVE|FORM....AIF|fLaC|OggS|ID3|\xff[\xfb\xf3\xf2]|....ftyp)",
        "it is a sound or film, not a model",
    ),
    (rb"GGUF", "it is a GGUF model, which is not read"),
    (rb"(%PDF|\x89PNG|\xff\xd8\xff|GIF8)", "it is a document or picture"),
)


def stranger(start: bytes) -> str | None:
    """Return what a file that begins like this is and what to do, or None if it is none of those we know."""
    for pattern, what in _MAGIC:
        if re.match(pattern, start, re.IGNORECASE if pattern.startswith(rb"\s") else re.DOTALL):
            return what
    head = start[:64]
    if len(head) > 8 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"it is a text that begins with {head[:32].decode()!r}: perhaps a download that went wrong"
    return None
