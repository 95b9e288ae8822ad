"""Damage to bytes and to JSON values, decided by a seeded random generator alone."""

from __future__ import annotations

import json
import random
import struct
import zipfile
from io import BytesIO
from typing import Any

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
"""Numbers at which formats overflow."""
JSON_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.5, 2**31, 2**62, 10**30, 1e308, float("nan"), float("inf"), "", "a", "\x1b[2J\n",
    "x" * 5000, "../../etc/passwd", [], {}, [[]], [1] * 5, [0] * 5, [2**62] * 5, [1.5] * 3, [True] * 3, ["a"] * 3,
)  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to six changes: bits, numbers, parts that are cut out, doubled, moved or replaced, or the end cut off."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        _change(damaged, rng)
    return bytes(damaged)


def _change(data: bytearray, rng: random.Random) -> None:
    if not data:
        data += rng.randbytes(rng.randint(1, 16))
        return
    # Half of the changes hit the first 200 bytes, where formats keep what they are.
    at = rng.randrange(min(len(data), 200) if rng.random() < 0.5 else len(data))
    size = rng.choice((1, 2, 4, 8, 30))
    match rng.randrange(8):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at] = rng.randrange(256)
        case 2 | 3:
            width = rng.choice((1, 2, 4, 8))
            number = rng.choice(INTERESTING) % 2 ** (8 * width)
            data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
        case 4:
            del data[at : at + size]
        case 5:
            data[at:at] = data[at : at + size]
        case 6:
            data[at : at + size] = rng.randbytes(size)
        case 7:
            del data[rng.randrange(len(data)) :]


def mutate_json(value: Any, rng: random.Random) -> Any:
    """The same value with one part of it replaced, removed, renamed, or put into another list."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        changed = dict(value)
        name = rng.choice(list(changed))
        match rng.randrange(8):
            case 0:
                del changed[name]
            case 1:
                changed[rng.choice((name + "x", "", "\x1b]0;a\x07", "x" * 5000))] = changed.pop(name)
            case _:
                changed[name] = mutate_json(changed[name], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], mutate_json(value[at], rng), *value[at + 1 :]]
    return rng.choice(JSON_VALUES)


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    """Changes the header as JSON (types, shapes, offsets, names, metadata) or the numbers, with matching lengths."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    match rng.randrange(5):
        case 0:
            return mutate_bytes(data, rng)
        case 1:
            numbers = bytearray(body)
            at = rng.randrange(0, len(numbers) - 1, 2)
            numbers[at : at + 2] = rng.choice((b"\x00\x7e", b"\x00\x7c", b"\x00\xfc", b"\xff\xff"))  # NaN, inf
            body = bytes(numbers)
        case 2:
            config = json.loads(header["__metadata__"]["config"])
            header["__metadata__"]["config"] = json.dumps(mutate_json(config, rng))
        case _:
            for _ in range(rng.choice((1, 1, 3))):
                header = mutate_json(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) + rng.choice((0, 0, 0, 1, -1, 2**40))) + text + body


def mutate_zip(data: bytes, rng: random.Random) -> bytes:
    """Changes one entry of an archive, with the right checksums, stored or compressed; or the archive itself."""
    if rng.random() < 0.2:
        return mutate_bytes(data, rng)
    with zipfile.ZipFile(BytesIO(data)) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    pickled = [index for index, (name, _) in enumerate(entries) if name.endswith("data.pkl")]
    at = pickled[0] if rng.random() < 0.7 else rng.randrange(len(entries))
    name, content = entries[at]
    if rng.random() < 0.1:
        del entries[at]
    else:
        entries[at] = (name, mutate_bytes(content, rng))
    written = BytesIO()
    with zipfile.ZipFile(written, "w", rng.choice((zipfile.ZIP_STORED,) * 5 + (zipfile.ZIP_DEFLATED,))) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return written.getvalue()
