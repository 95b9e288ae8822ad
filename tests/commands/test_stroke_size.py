"""The option --stroke-size of `adaattn stylize` and `adaattn compare`: the pictures that the library makes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from adaattn_core import load_image, load_model, save_image, save_model, stylize
from adaattn_core.cli import main
from adaattn_core.commands.compare import center_square
from adaattn_core.commands.shared import options
from adaattn_core.inference.stylize import KeptStyles
from adaattn_core.ops.resize import resize_image
from tests.helpers.comparison import assert_same
from tests.helpers.small_models import picture, small_model

MODEL = "--model m.safetensors --device cpu --precision float32"
ROUNDING = 0.5 / 255 + 2e-5
"""A PNG holds 8 bits."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: two contents in photos/ that stroke size 8 paints in two passes, a style and its mask."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    save_image(picture(128, 160, seed=1), "photos/sea.png")
    save_image(picture(130, 128, seed=2), "photos/hill.png")
    save_image(picture(150, 120, seed=3), "oil.png")
    save_image((torch.arange(120) < 70).float().expand(1, 3, 150, 120), "oil_mask.png")
    save_model(small_model(), "m.safetensors", dtype=torch.float32)
    return tmp_path


def run(line: str) -> None:
    assert main(shlex.split(line)) == 0


@pytest.mark.parametrize("limit", ["", "--max-memory-gb 64"])
def test_all_pictures_of_a_folder_are_painted_coarse_to_fine(limit: str) -> None:
    run(
        "stylize photos -o out --style oil.png --style-mask oil_mask.png --strength .8 --stroke-size 8 "
        f"--attention sampled --seed 2 {limit} {MODEL}"
    )
    settings: dict[str, Any] = {"strength": 0.8, "stroke_size": 8, "attention": "sampled", "seed": 2}
    for name in ("sea", "hill"):
        content, style, mask = (load_image(f"{one}.png") for one in (f"photos/{name}", "oil", "oil_mask"))
        wanted = stylize(load_model("m.safetensors"), content, style, style_masks=[mask[:, :1]], **settings)
        assert_same(load_image(f"out/{name}.png"), wanted, ROUNDING)


def test_styles_are_kept_unless_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []

    class Kept(KeptStyles):
        def __init__(self, pictures: Any) -> None:  # noqa: ANN401
            super().__init__(pictures)
            kept.append(len(self))

    monkeypatch.setattr(options, "KeptStyles", Kept)
    run(f"stylize photos -o out --style oil.png --stroke-size 8 {MODEL}")
    assert kept == [1], "one for all pictures"
    run(f"stylize photos -o out --style oil.png --stroke-size 8 --max-memory-gb 64 {MODEL}")
    assert kept == [1]


def test_a_style_is_as_large_as_each_pass_needs_it_unless_a_size_is_given() -> None:
    """In one pass, 512 pixels are the default."""
    save_image(picture(600, 530, seed=4), "large.png")
    content, style = load_image("photos/sea.png"), load_image("large.png")
    for words, side in (("--stroke-size 8", 530), ("--stroke-size 8 --style-size 100", 100), ("", 512)):
        run(f"stylize photos/sea.png -o a.png --style large.png {words} {MODEL}")
        small = resize_image(style, short_side=side)
        wanted = stylize(load_model("m.safetensors"), content, small, stroke_size=8 if words else 0)
        assert_same(load_image("a.png"), wanted, ROUNDING)


def test_compare_paints_each_cell_coarse_to_fine() -> None:
    run(f"compare --content photos/hill.png --style oil.png -o sheet.png --size 120 --stroke-size 8 {MODEL}")
    content, style = (center_square(load_image(path), 120) for path in ("photos/hill.png", "oil.png"))
    wanted = stylize(load_model("m.safetensors"), content, style, stroke_size=8)
    assert_same(load_image("sheet.png")[..., 124:, 124:], wanted, ROUNDING)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--stroke-size -1", "argument --stroke-size: -1 is out of range; it must be between 0 and 8"),
        ("--stroke-size 8.5", "argument --stroke-size: 8.5 is out of range; it must be between 0 and 8"),
        ("--stroke-size nan", "argument --stroke-size: nan is out of range; it must be between 0 and 8"),
        ("--stroke-size broad", "argument --stroke-size: 'broad' is not a number"),
    ],
)
def test_wrong_values_are_refused_in_one_line(words: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(f"stylize photos/sea.png -o a.png --style oil.png {words} {MODEL}")) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"adaattn: {expected}") and errors.count("\n") == 1
    assert not Path("a.png").exists()
