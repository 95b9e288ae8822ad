"""Formats by suffix and by content: plugins of Pillow, files that are something else, and animations."""

from __future__ import annotations

import io
import logging
import shutil
import sys
import tarfile
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaattn_core.errors import ImageError
from adaattn_core.io import formats
from adaattn_core.io.image_files import find_images
from adaattn_core.io.images import load_image
from adaattn_core.io.picture_sources import list_pictures
from tests.helpers.pixels import SIZE, assert_color
from tests.helpers.tiny_tiffs import REPORTS, write_tiff


def refusal(path: Path) -> str:
    """The rest of the error's sentence after the file's name."""
    with pytest.raises(ImageError) as caught:
        load_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ") and "\n" not in message
    return message.removeprefix(f"{path} ")


# ---------------------------------------------------------------- plugins


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Pillow without the formats of plugins, none of which is installed."""
    for plugin in formats.PLUGINS:
        monkeypatch.delitem(Image.OPEN, plugin.format, raising=False)
    for module in ("pillow_heif", "pillow_avif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)
    formats.load_plugins.cache_clear()
    yield monkeypatch
    formats.load_plugins.cache_clear()


@pytest.mark.parametrize(
    ("name", "head", "kind", "package"),
    [
        ("photo.heic", None, "HEIC", "pillow-heif"),
        ("photo.jpg", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC", "pillow-heif"),  # the content counts
        ("a.avif", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF", "pillow-avif-plugin"),
        ("a.jxl", b"\xff\x0a\x00\x00", "JPEG XL", "pillow-jxl-plugin"),
        ("b.jxl", b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "pillow-jxl-plugin"),
    ],
)
@pytest.mark.usefixtures("plugins")
def test_a_format_without_its_plugin_names_the_package(
    tmp_path: Path, name: str, head: bytes | None, kind: str, package: str
) -> None:
    (tmp_path / name).write_bytes((REPORTS / name).read_bytes() if head is None else head + bytes(64))
    assert refusal(tmp_path / name) == (
        f"is a picture in {kind}, which needs the package {package}. Run: pip install {package}"
    )


def test_an_installed_plugin_is_used_without_being_asked(plugins: pytest.MonkeyPatch) -> None:
    """A stand-in for pillow_heif, which registers an opener as the real one does."""

    class Heif(Image.Image):
        def __init__(self) -> None:
            super().__init__()
            self.im, self._size, self._mode = Image.new("RGB", (20, 16), "red").im, (20, 16), "RGB"

    def register() -> None:
        plugins.setitem(Image.OPEN, "HEIF", (lambda file, name: Heif(), lambda head: head[4:8] == b"ftyp"))
        plugins.setattr(Image, "ID", [*Image.ID, "HEIF"])

    plugins.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    assert_color(load_image(REPORTS / "photo.heic"), (1, 0, 0))


def test_pillow_heif_reads_a_heic() -> None:
    pytest.importorskip("pillow_heif", reason="pip install pillow-heif runs this test")
    assert load_image(REPORTS / "photo.heic").shape == (1, 3, 64, 96)


# ---------------------------------------------------------------- suffixes


def test_a_folder_gives_every_suffix_that_is_read_when_named(tmp_path: Path) -> None:
    picture = Image.new("RGB", SIZE, (255, 51, 0))
    for suffix, name in Image.registered_extensions().items():
        if name in formats.READ_FORMATS and name in Image.SAVE and suffix != ".pfm":
            picture.save(tmp_path / f"a{suffix}", name)
    Image.new("F", SIZE, 0.5).save(tmp_path / "a.pfm")
    found = find_images([tmp_path])
    assert {path.name for path in found} == {path.name for path in tmp_path.iterdir()}
    assert {".jpe", ".mpo", ".apng", ".pbm", ".png", ".jpg", ".tiff", ".j2k"} <= {path.suffix for path in found}
    for path in found:
        assert load_image(path).shape == (1, 3, 16, 20), path


def test_suffixes_of_plugins_belong_to_pictures() -> None:
    assert all(map(formats.is_picture_name, ("a.heic", "A.HEIF", "b.avif", "c.jxl")))
    assert not any(map(formats.is_picture_name, ("a.txt", "b.eps", "png", "c.dng", "d")))


@pytest.mark.parametrize("pattern", ["{}", "{}/**/*", "{}/photos.tar"])
def test_what_is_skipped_is_counted_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture, pattern: str) -> None:
    names = ["a.png", "notes.txt", "b.TXT", "c.dng", "sub/d.xmp", "sub/README", ".hidden.txt"]
    (tmp_path / "sub").mkdir()
    for name in names:
        Image.new("RGB", SIZE).save(tmp_path / name, "PNG")
    if "tar" in pattern:
        with tarfile.open(tmp_path / "photos.tar", "w") as archive:
            for name in names:
                archive.add(tmp_path / name, name)
    source = pattern.format(tmp_path)
    assert len(list_pictures(source)) == 1
    assert [record.message for record in caplog.records] == [
        f"{source}: 5 files skipped, as not of a known picture format (.txt, .dng, .xmp, ...)"
    ]


def test_a_folder_of_pictures_alone_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    assert find_images([tmp_path]) == [tmp_path / "a.png"]
    assert not caplog.records


# ---------------------------------------------------------------- other files


RAW = "is a camera's raw file; a developed picture is needed. Export it as JPEG, PNG or TIFF first."


@pytest.mark.parametrize("name", ["camera.dng", "camera.tif", "camera.png"])
def test_a_raw_file_is_not_read_as_its_preview(tmp_path: Path, name: str) -> None:
    shutil.copy(REPORTS / "camera.dng", tmp_path / name)
    assert refusal(tmp_path / name) == RAW


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.cr3", b"\0\0\0\x18ftypcrx "), ("a.raf", b"FUJIFILMCCD-RAW 0201"), ("a.x3f", b"FOVb"), ("a.mrw", b"\0MRM"),
        ("a.orf", b"IIRO\x08\0\0\0"), ("a.rw2", b"IIU\0\x08\0\0\0"), ("a.crw", b"II\x1a\0\0\0HEAPCCDR"),
        ("renamed.jpg", b"FUJIFILMCCD-RAW 0201"), ("unknown.raw", b"\1\2\3\4"),
    ],
)  # fmt: skip
def test_raw_files_that_are_no_tiff_are_told_by_their_first_bytes_or_suffix(
    tmp_path: Path, name: str, head: bytes
) -> None:
    (tmp_path / name).write_bytes(head + bytes(64))
    assert refusal(tmp_path / name) == RAW


def test_raw_files_with_an_ordinary_preview_are_told_by_tags_or_suffix(tmp_path: Path) -> None:
    preview = (bytes(256), {258: (8,)})
    for name in ("a.nef", "a.arw", "a.PEF"):
        write_tiff(tmp_path / name, [preview])
        assert refusal(tmp_path / name) == RAW
    write_tiff(tmp_path / "mosaic.tif", [(bytes(512), {258: (16,), 262: (32803,)})])
    assert refusal(tmp_path / "mosaic.tif") == RAW


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.png", b"x")
    return data.getvalue()


def tarred() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
    return data.getvalue()


PAGE = "is a web page. The address leads to a page about the file: open it in a browser and download the file."
ARCHIVE = "is an archive ({}). Unpack it and name the file inside."
KINDS = {
    "empty": (b"", "is empty. Download or export it again."),
    "pointer": (
        (REPORTS / "lfs.safetensors").read_bytes(),
        "is a pointer of Git LFS and not the file itself. "
        "Run git lfs pull in the repository that it is from, or download the file itself.",
    ),
    "page": (b"\n<!DOCTYPE html><html><title>Log in</title>", PAGE),
    "old page": (b"<HTML><head>", PAGE),
    "answer": (b'{"error":"not found"}', "is the answer of a server in text form. Check the address and download "
               "the file again."),
    "zip": (zipped(), ARCHIVE.format("zip")),
    "tar": (tarred(), ARCHIVE.format("tar")),
    "gzip": (b"\x1f\x8b\x08\0", ARCHIVE.format("gzip")),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", ARCHIVE.format("7z")),
}  # fmt: skip


@pytest.mark.parametrize(
    "head",
    [b"\x00\x00\x00 ftypisom\x00\x00\x02\x00isomiso2", b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  ",
     b"\x1aE\xdf\xa3\x9fB\x86\x81\x01", b"RIFF\x24\x10\x00\x00AVI LIST"],
    ids=["mp4", "mov", "webm", "avi"],
)  # fmt: skip
def test_a_video_in_place_of_a_picture_is_named_as_such(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "clip.png"  # the first bytes decide, not the name
    path.write_bytes(head + bytes(600))
    assert refusal(path) == "is a video; a picture is needed. Paint it with adaattn video, or save a frame of it."


@pytest.mark.parametrize("kind", KINDS)
def test_a_download_that_is_no_picture_says_what_it_is(tmp_path: Path, kind: str) -> None:
    data, text = KINDS[kind]
    (tmp_path / "a.png").write_bytes(data)
    assert refusal(tmp_path / "a.png") == text


# ---------------------------------------------------------------- animations


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.gif", "adaattn video {} --style S -o OUT.mp4 paints them all"),
        ("a.apng", "adaattn video {} --style S -o OUT.mp4 paints them all"),
        ("a.png", "adaattn video {} --style S -o OUT.mp4 paints them all"),
        ("a.webp", "save it as a GIF or a clip to paint them all with adaattn video"),
        ("a.tif", "save the others as files of their own to use them"),
        ("a.mpo", "save the others as files of their own to use them"),
    ],
)
def test_the_first_of_several_frames_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, advice: str
) -> None:
    frames = [Image.new("RGB", SIZE, color) for color in ("red", "blue", "lime")]
    path = tmp_path / name
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert_color(load_image(path), (1, 0, 0), atol=3 / 255)  # JPEG's own loss
    assert [record.message for record in caplog.records] == [
        f"{path}: the first of its 3 frames is used; {advice.format(path)}"
    ]


def test_the_gain_map_of_a_telephones_jpeg_is_no_second_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture = Image.fromarray(np.full((32, 32, 3), 128, np.uint8))
    picture.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[picture.resize((16, 16))])
    load_image(tmp_path / "a.jpg")
    assert not caplog.records
