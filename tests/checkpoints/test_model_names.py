"""Names of models: the built-in one, the full-size one in the folders of the user, and names that are none."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from adaattn_core import load_model, save_model
from adaattn_core.checkpoints.model_file import (
    MODEL_FOLDERS_VARIABLE,
    find_model,
    fingerprint,
    model_folders,
)
from adaattn_core.checkpoints.tensor_file import read_metadata, read_tensors
from adaattn_core.cli import build_parser
from adaattn_core.models.config import COMPACT
from adaattn_core.models.model import StyleTransferModel
from tests.helpers.refused_files import refused
from tests.helpers.small_models import SMALL, SMALL_VIDEO, small_model

checkpoint_module = sys.modules["adaattn_core.checkpoints.model_file"]


# ---------------------------------------------------------------- names


def test_the_built_in_model_is_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "WEIGHTS_FOLDER", tmp_path)
    save_model(small_model(), tmp_path / "compact.safetensors")
    assert load_model("compact").config == SMALL


def test_base_is_the_default_model_and_compact_that_of_clips() -> None:
    assert fingerprint(load_model()) == fingerprint(load_model("base"))
    lines = {"stylize": "a.jpg --style b.jpg -o c.png", "attention": "a.jpg --style b.jpg -o c.html",
             "compare": "--content a.jpg --style b.jpg -o c.png", "video": "a.mp4 --style b.jpg -o c.mp4"}  # fmt: skip
    defaults = {name: build_parser().parse_args([name, *line.split()]).model for name, line in lines.items()}
    assert defaults == {"stylize": "base", "attention": "base", "compare": "base", "video": "compact"}


def test_an_unknown_model() -> None:
    text = r"unknown model 'large'; known are base, compact, compact-0.1, published, or a \.safetensors file\."
    refused(lambda: load_model("large"), text)


@pytest.mark.parametrize("name", ["latest_net_decoder.pth", "model.pt", "model.ckpt"])
def test_a_published_checkpoint_is_no_model_file(name: str) -> None:
    text = rf"{name} is a published checkpoint; make a model file of it with adaattn convert first\."
    refused(lambda: load_model(name), text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.pth"):
        text = rf".*{name}: no such weights file\. Check the path\."
        refused(lambda path=tmp_path / name: read_tensors(path), text)  # type: ignore[misc]
    refused(lambda: load_model(tmp_path / "model.safetensors"), r".*: no such weights file\. Check the path\.")


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"device 'cuda:99' is not there; this machine has .*cpu\. Choose one of these"
    ):
        load_model("compact", device="cuda:99")


def test_a_dtype_by_name() -> None:
    with pytest.raises(ValueError, match=r"dtype is 'float16'; a torch\.dtype is needed, such as torch\.float16\."):
        load_model("compact", dtype="float16")  # type: ignore[arg-type]


def test_the_published_model_without_a_file_says_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "one", tmp_path / "two", tmp_path / "home" / ".adaattn"]
    monkeypatch.setenv(MODEL_FOLDERS_VARIABLE, os.pathsep.join(map(str, folders[:2])))
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    assert model_folders() == folders
    candidates = [re.escape(str(folder / "adaattn_published.safetensors")) for folder in folders]
    refused(
        lambda: load_model("published"),
        rf"no published model at {' or '.join(candidates)}\. Download the published checkpoints \(links in the "
        r"README of github\.com/Huage001/AdaAttN\) and run: "
        rf"adaattn convert FOLDER --encoder vgg_normalised\.pth -o {candidates[2]}",
    )


def test_the_published_model_is_found_in_the_users_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.delenv(MODEL_FOLDERS_VARIABLE, raising=False)
    (tmp_path / ".adaattn").mkdir()
    save_model(small_model(), tmp_path / ".adaattn" / "adaattn_published.safetensors")
    assert load_model("published").config == SMALL
    (tmp_path / "first").mkdir()
    save_model(small_model(config=SMALL_VIDEO), tmp_path / "first" / "adaattn_base.safetensors")
    monkeypatch.setenv(MODEL_FOLDERS_VARIABLE, str(tmp_path / "first"))
    assert load_model("published").config == SMALL_VIDEO, "the name that the file had until version 0.1"
    assert not caplog.messages
    older = tmp_path / "first" / "adaattn_base.safetensors"
    assert find_model("base").parent == checkpoint_module.WEIGHTS_FOLDER
    assert caplog.messages == [
        f'the model "base" is the built-in full-size model since version 0.2; {older} is the model "published"'
    ]


# ---------------------------------------------------------------- the built-in weights


BUILT_IN = checkpoint_module.WEIGHTS_FOLDER / "compact.safetensors"
needs_built_in = pytest.mark.skipif(
    not BUILT_IN.exists(), reason="adaattn_core/weights/compact.safetensors is not there; adaattn train makes it"
)


@pytest.fixture(scope="module")
def built_in() -> StyleTransferModel:
    return load_model("compact")


@needs_built_in
def test_the_built_in_model_is_small_and_says_what_it_is(built_in: StyleTransferModel) -> None:
    assert BUILT_IN.stat().st_size <= 12_000_000
    assert built_in.config == COMPACT
    assert all(parameter.isfinite().all() for parameter in built_in.parameters())
    metadata = read_metadata(BUILT_IN)
    assert metadata["trained_on"] and metadata["license"]
    assert not re.search(r'"(/|~|[A-Z]:)', metadata["trained_on"]), "a path of the machine it was trained on"
    assert list(BUILT_IN.parent.glob("LICENSE*"))
