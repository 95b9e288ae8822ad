"""Files that are no weights, whatever their names say: the error says what they are and what to do."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adaattn_core import CheckpointError, convert_published, load_model, load_vgg, save_model
from tests.helpers.small_models import small_model
from tests.helpers.tiny_tiffs import REPORTS


def zipped(name: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"x" * 99)
    return data.getvalue()


def tarred() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("m.safetensors"))
    return data.getvalue()


ARCHIVE = "is an archive ({}). Unpack it and name the file inside."
KINDS: dict[str, tuple[bytes, str]] = {
    "pointer": (
        (REPORTS / "lfs.safetensors").read_bytes(),
        "is a pointer of Git LFS and not the file itself. "
        "Run git lfs pull in the repository that it is from, or download the file itself.",
    ),
    "page": (
        b"<!DOCTYPE html>\n<html><body>Sign in</body></html>",
        "is a web page. The address leads to a page about the file: open it in a browser and download the file.",
    ),
    "empty": (b"", "is empty. Download or export it again."),
    "answer": (
        b'{"error":"Repository not found"}',
        "is the answer of a server in text form. Check the address and download the file again.",
    ),
    "zip": (zipped("model.safetensors"), ARCHIVE.format("zip")),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(60), ARCHIVE.format("gzip")),
    "tar": (tarred(), ARCHIVE.format("tar")),
    "7z": (b"7z\xbc\xaf\x27\x1c\x00\x04", ARCHIVE.format("7z")),
}


def message(call: Callable[[], object], path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        call()
    text = str(caught.value)
    assert text.startswith(f"{path} ") and "\n" not in text
    return text.removeprefix(f"{path} ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_download_that_is_no_weights_file_says_what_it_is(tmp_path: Path, kind: str) -> None:
    data, text = KINDS[kind]
    for name in ("m.safetensors", "vgg.pth"):
        (tmp_path / name).write_bytes(data)
    model, vgg = tmp_path / "m.safetensors", tmp_path / "vgg.pth"
    assert message(lambda: load_model(model), model) == text
    assert message(lambda: load_vgg(model), model) == text
    assert message(lambda: load_vgg(vgg), vgg) == text


def test_a_pointer_among_the_published_files_is_named(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published / "AdaAttN", tmp_path / "AdaAttN")
    decoder = folder / "latest_net_decoder.pth"
    shutil.copy(REPORTS / "lfs.safetensors", decoder)
    assert message(lambda: convert_published(folder, published / "vgg_normalised.pth"), decoder) == KINDS["pointer"][1]


def test_weights_with_the_suffix_of_the_other_format(tmp_path: Path) -> None:
    torch.save({"conv0.weight": torch.zeros(3)}, tmp_path / "m.safetensors")
    path = tmp_path / "m.safetensors"
    assert message(lambda: load_model(path), path) == (
        "is a PyTorch checkpoint and no safetensors file. Name it .pth, beside the other published files."
    )
    save_model(small_model(), tmp_path / "n.safetensors")
    path = (tmp_path / "n.safetensors").rename(tmp_path / "n.pth")
    assert message(lambda: load_vgg(path), path) == "is a safetensors file. Name it .safetensors."


def test_weights_whose_first_bytes_are_those_of_an_archive_are_read(tmp_path: Path) -> None:
    """The first bytes are the length of the header: 0x8b1f bytes of it look like gzip."""
    path = tmp_path / "m.safetensors"
    save_model(small_model(), path)
    start = path.read_bytes()
    length = int.from_bytes(start[:8], "little")
    padded = start[8 : 8 + length] + b" " * (0x8B1F - length)
    path.write_bytes((0x8B1F).to_bytes(8, "little") + padded + start[8 + length :])
    assert path.read_bytes().startswith(b"\x1f\x8b")
    load_model(path)
