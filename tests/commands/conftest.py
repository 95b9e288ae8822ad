"""Folders of small pictures, and commands that have to fail."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adaattn_core import save_image, save_model
from adaattn_core.cli import main
from tests.helpers.small_models import picture, small_model

Complain = Callable[[str], str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: contents in photos/, styles in paintings/, m.safetensors, and out/ for results."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/north", "paintings", "out"):
        Path(name).mkdir(parents=True)
    save_image(picture(40, 56, seed=1), "photos/sea.png")
    save_image(picture(36, 36, seed=2), "photos/hill.png")
    save_image(picture(48, 32, seed=3), "paintings/oil.png")
    save_image(picture(40, 64, seed=4), "paintings/ink.png")
    save_model(small_model(), "m.safetensors", dtype=torch.float32)
    return tmp_path


@pytest.fixture
def small_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: sea.png (56x40), style.png, m.safetensors, and an empty out/."""
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    save_image(picture(40, 56, seed=1), "sea.png")
    save_image(picture(32, 32, seed=2), "style.png")
    save_model(small_model(), "m.safetensors")
    return tmp_path


@pytest.fixture
def complain(small_folder: Path, capsys: pytest.CaptureFixture[str]) -> Complain:
    """Runs a command that has to fail; returns its line."""

    def failing(line: str, code: int = 2) -> str:
        assert main(shlex.split(line)) == code
        output, errors = capsys.readouterr()
        assert output == ""
        assert errors.count("\n") == 1, errors
        assert errors.startswith("adaattn: ")
        assert "Traceback" not in errors
        assert list((small_folder / "out").iterdir()) == [], "something was left behind"
        return errors.removeprefix("adaattn: ").rstrip("\n")

    return failing
