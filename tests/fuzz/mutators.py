"""Changes inside containers, where a blind change of bytes would only break what is around them."""

from __future__ import annotations

import io
import json
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Change = Callable[[bytes], bytes]
"""A blind change of plain bytes."""

Mutator = Callable[[bytes, Change, random.Random], bytes]
"""Returns a file changed inside; ValueError if it is no such container."""

NUMBERS = (0, 1, -1, 2, 3, 16, 64, 2**12, 2**14, 2**20, 2**31 - 1, 2**31, 2**48, 2**63, 10**400, 0.5, 1e300)
OTHERS = (
    "",
    "a",
    "\ud800",
    "40k",
    "0",
    None,
    True,
    False,
    [],
    {},
    [[]],
    [0] * 20,
    float("nan"),
    float("inf"),
)


def checkpoint(data: bytes, change: Change, rng: random.Random) -> bytes:
    """Change the pickle, or another entry, of a zip file of torch.save; or an older file's pickles."""
    if data[:2] != b"PK":
        return pickle(data, change, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
    except Exception as e:  # of a damaged archive zipfile raises many kinds
        raise ValueError from e
    if not entries:
        raise ValueError
    names = sorted(entries)
    name = next((n for n in names if n.endswith("data.pkl")), names[0])
    if rng.random() < 0.2:
        name = rng.choice(names)
    entries[name] = pickle(entries[name], change, rng) if name.endswith(".pkl") else change(entries[name])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(zipfile.ZipInfo(name), entry)
    return out.getvalue()


def pickle(data: bytes, change: Change, rng: random.Random) -> bytes:
    """Move, drop, double or change single opcodes."""
    places = []
    try:
        for _, _, at in pickletools.genops(data):
            places.append(at)
    except Exception:  # it raises many kinds; what was read so far counts
        pass
    if len(places) < 2:
        raise ValueError
    end = places[-1] + 1
    codes = [data[a:b] for a, b in zip(places, [*places[1:], end], strict=True)]
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at, other = rng.randrange(len(codes)), rng.randrange(len(codes))
        match rng.randrange(6):
            case 0:
                del codes[at : at + rng.choice([1, 1, 2, 5])]
            case 1:
                codes.insert(at, codes[other])
            case 2:
                codes[at] = codes[other]
            case 3:
                codes[at:at] = codes[other : other + rng.randrange(2, 12)]
            case 4:
                codes[at] = codes[at][:1] + change(codes[at][1:]) if len(codes[at]) > 1 else change(codes[at])
            case 5:
                codes[at] = b"J" + struct.pack("<i", rng.choice([-1, 0, 1, 2, 40, 1 << 20, 2**31 - 1]))
        if len(codes) < 2:
            break
    return b"".join(codes) + data[end:]


def safetensors(data: bytes, change: Change, rng: random.Random) -> bytes:
    """Change the header of a safetensors file, or what stands in its metadata as JSON; the length follows."""
    end = 8 + int.from_bytes(data[:8], "little")
    header, body = data[8:end], data[end:]
    if rng.random() < 0.1:
        body = change(body)
    else:
        try:
            parsed = json.loads(header)
            metadata = parsed["__metadata__"]
            inner = [name for name, text in metadata.items() if text[:1] in ("{", "[")]
            if inner and rng.random() < 0.7:
                name = rng.choice(inner)
                metadata[name] = json_text(metadata[name].encode(), change, rng).decode("utf-8", "replace")
                header = json.dumps(parsed).encode()
            else:
                header = json_text(header, change, rng)
        except (KeyError, TypeError, AttributeError, RecursionError) as e:
            raise ValueError from e
    return len(header).to_bytes(8, "little") + header + body


def json_text(data: bytes, change: Change, rng: random.Random) -> bytes:
    """Change one value anywhere in a JSON text."""
    if rng.random() < 0.1:
        return change(data)
    try:
        root = [json.loads(data)]
        places = list(_places(root))
        holder, key = rng.choice(places)
        match rng.randrange(5):
            case 0:
                holder[key] = rng.choice(NUMBERS)
            case 1:
                holder[key] = rng.choice(OTHERS)
            case 2:
                other, name = rng.choice(places)
                holder[key] = json.loads(json.dumps(other[name]))
            case 3:
                del holder[key]
            case 4:
                value = holder[key]
                if type(value) in (int, float, bool):
                    holder[key] = rng.choice(
                        [value - 1, value + 1, 2 * value, float(value), bool(value), [value]]
                    )
                elif type(value) is str:
                    holder[key] = change(value.encode("utf-8", "replace")).decode("utf-8", "replace")
                elif type(value) is list:
                    holder[key] = rng.choice(
                        [[*value, 1], value * 2, value * 64 if len(value) < 64 else value[:1]]
                    )
        return json.dumps(root[0]).encode()
    except (IndexError, RecursionError, OverflowError) as e:
        raise ValueError from e


def _places(value: Any) -> Any:
    """Yield (holder, key) of every value below."""
    for key in range(len(value)) if type(value) is list else list(value):
        yield value, key
        if type(value[key]) in (list, dict):
            yield from _places(value[key])
