"""What Pillow and its decoders say about damaged files does not reach standard error or the host's warnings."""

from __future__ import annotations

import os
import random
import struct
import sys
import threading
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import pytest

from adaattn_core.errors import ImageError
from adaattn_core.io.decoding import decode, quiet_decoders
from adaattn_core.io.formats import bits_per_value, open_formats
from adaattn_core.io.images import load_image, to_pil
from tests.helpers.small_models import picture


def damaged(kind: str, count: int, **options: object) -> list[bytes]:
    """Files with a few bytes changed."""
    encoded = BytesIO()
    to_pil(picture(40, 50)).save(encoded, kind, **options)
    generator = random.Random(1)
    files = []
    for _ in range(count):
        data = bytearray(encoded.getvalue())
        for _ in range(4):
            data[generator.randrange(len(data))] = generator.randrange(256)
        files.append(bytes(data))
    return files


def read_all(files: list[bytes]) -> int:
    """The number of files that cannot be read."""
    failures = 0
    for number, data in enumerate(files):
        try:
            decode(BytesIO(data), f"{number}.tif")
        except ImageError:
            failures += 1
    return failures


@pytest.mark.skipif(sys.platform == "win32", reason="Pillow's libtiff is not reached there")
@pytest.mark.parametrize("compression", ["tiff_deflate", "tiff_lzw", "jpeg"])
def test_decoders_do_not_print(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    files = damaged("TIFF", 40, compression=compression)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert read_all(files) > 5
    assert capfd.readouterr().err == ""
    assert [str(warning.message) for warning in seen if "PIL" in warning.filename] == []


def test_the_filters_of_the_host_are_as_before() -> None:
    before = list(warnings.filters)
    threads = [threading.Thread(target=read_all, args=(damaged("TIFF", 20),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
    with quiet_decoders, quiet_decoders:
        assert len(warnings.filters) == len(before) + 1
    assert list(warnings.filters) == before


def test_corrupt_exif_gives_no_warning(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "a.jpg")
    to_pil(picture(20, 20)).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(path).shape == (1, 3, 20, 20)


def write_png16(path: Path, kind: int) -> None:
    """A PNG of 16 x 16 pixels with 16 bits per channel. kind: 0 grey, 2 RGB, 4 grey with opacity, 6 RGBA."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    header = struct.pack(">IIBBBBB", 16, 16, 16, kind, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80\x7f" * 16 * channels) * 16)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize(("kind", "is_said"), [(0, False), (2, True), (4, True), (6, True)])
def test_colours_of_16_bits_that_are_read_with_8_are_remarked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: int, is_said: bool
) -> None:
    """Pillow keeps the high byte of colours; grey is read in full."""
    path = tmp_path / "deep.png"
    write_png16(path, kind)
    decode(path)
    line = f"{path}: its values of 16 bits are read with 8 bits, as results are written"
    assert caplog.messages == [line] * is_said


def test_deep_ppm_files_are_remarked_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for maximum in (255, 1023, 4095, 65535):
        size = 2 if maximum > 255 else 1
        (tmp_path / f"{maximum}.ppm").write_bytes(b"P6 16 16 %d\n" % maximum + bytes(16 * 16 * 3 * size))
        decode(tmp_path / f"{maximum}.ppm")
    assert caplog.messages == [
        f"{tmp_path / name}: its values of {bits} bits are read with 8 bits, as results are written"
        for name, bits in (("1023.ppm", 10), ("4095.ppm", 12), ("65535.ppm", 16))
    ]


DEEP = Path(__file__).parents[1] / "data" / "deep"


@pytest.mark.parametrize(
    ("name", "bits"), [("ten_bits.avif", 10), ("ten_bits.heic", 10), ("sixteen_bits.jp2", 16), ("twelve_bits.j2k", 12)]
)
def test_formats_whose_depth_pillow_does_not_tell_are_remarked_too(
    name: str, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert bits_per_value(BytesIO((DEEP / name).read_bytes())) == bits
    if {".avif": "AVIF", ".heic": "HEIF"}.get(Path(name).suffix, "JPEG2000") in open_formats():
        decode(DEEP / name)
        line = f"{DEEP / name}: its values of {bits} bits are read with 8 bits, as results are written"
        assert caplog.messages == [line]


def test_the_same_formats_with_8_bits_are_not_remarked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jp2", "a.j2k", "a.avif"):
        if name != "a.avif" or "AVIF" in open_formats():
            to_pil(picture(20, 24)).convert("RGBA").save(tmp_path / name)
            decode(tmp_path / name)
            assert bits_per_value(BytesIO((tmp_path / name).read_bytes())) == 8
    assert caplog.messages == []


def test_damage_in_the_boxes_of_a_file_ends_the_search_for_its_depth() -> None:
    generator = random.Random(0)
    for path in DEEP.glob("ten_bits.*"):
        whole = path.read_bytes()
        for size in range(0, len(whole), 3):
            assert bits_per_value(BytesIO(whole[:size])) in (8, 10)
        for _ in range(300):
            damaged = bytearray(whole)
            for _ in range(3):
                damaged[generator.randrange(len(whole) // 2)] = generator.randrange(256)
            assert 8 <= bits_per_value(BytesIO(damaged)) <= 128
    assert bits_per_value(BytesIO((bytes(3) + b"\x08free") * 10**6)) == 8
