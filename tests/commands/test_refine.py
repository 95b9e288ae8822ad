"""The option --refine of `adaattn stylize` and `adaattn compare`, with a narrow network in the place of VGG-19."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import load_image, load_model, refine, save_image, save_model, stylize
from adaattn_core.cli import main
from adaattn_core.commands import stylize as stylize_command
from adaattn_core.commands.compare import center_square
from adaattn_core.models.encoder import VGGEncoder
from adaattn_core.ops.resize import resize_image
from tests.helpers.small_models import picture, small_model

MODEL = "--model m.safetensors --device cpu --precision float32"
ROUNDING = 0.5 / 255 + 1e-6
"""A PNG holds 8 bits."""


@pytest.fixture
def vgg(monkeypatch: pytest.MonkeyPatch) -> VGGEncoder:
    network = small_model(5).encoder

    def load(*, normalized: bool) -> VGGEncoder:
        assert normalized
        return network

    for module in (stylize_command, sys.modules["adaattn_core.inference.stylize"]):
        monkeypatch.setattr(module, "load_vgg", load)
    return network


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: contents in photos/, two styles, a mask of each, m.safetensors, and out/ for results."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "out"):
        Path(name).mkdir()
    save_image(picture(40, 56, seed=1), "photos/sea.png")
    save_image(picture(36, 36, seed=2), "photos/hill.png")
    save_image(picture(48, 32, seed=3), "oil.png")
    save_image(picture(40, 64, seed=4), "ink.png")
    save_image((torch.arange(56) < 20).float().expand(1, 3, 40, 56), "mask.png")
    save_image((torch.arange(32) < 20).float().expand(1, 3, 48, 32), "oil_mask.png")
    save_model(small_model(), "m.safetensors", dtype=torch.float32)
    return tmp_path


def run(line: str) -> None:
    assert main(shlex.split(line)) == 0


def refined(content: Tensor, style: list[Tensor], vgg: VGGEncoder, **options: Any) -> Tensor:
    """What the library makes of the pictures in 4 steps."""
    result = stylize(load_model("m.safetensors"), content, style, **options)
    return refine(result, content, style, steps=4, vgg=vgg, dtype=torch.float32, **options)


def assert_holds(path: str, expected: Tensor) -> None:
    result = load_image(path)
    assert result.shape == expected.shape
    difference = (result - expected).abs()
    assert float(difference.max()) <= ROUNDING, f"max {difference.max():.4f}, mean {difference.mean():.4f}"


def test_options_reach_the_refinement(folder: Path, vgg: VGGEncoder) -> None:
    sea, oil, ink = (load_image(path) for path in ("photos/sea.png", "oil.png", "ink.png"))
    mask, style_mask = load_image("mask.png")[:, :1], load_image("oil_mask.png")[:, :1]
    run(
        "stylize photos/sea.png -o a.png --style oil.png --style ink.png --style-weights 3,1 --style-mask oil_mask.png"
        f" --style-mask none --content-mask mask.png --strength .8 --temperature 2 --keep-color --refine 4 {MODEL}"
    )
    options: dict[str, Any] = {
        "style_weights": [3, 1], "style_masks": [style_mask, None], "content_mask": mask, "strength": 0.8,
        "temperature": 2.0, "keep_color": True,
    }  # fmt: skip
    assert_holds("a.png", refined(sea, [oil, ink], vgg, **options))


def test_refine_content_and_size(folder: Path, vgg: VGGEncoder) -> None:
    sea, oil = load_image("photos/sea.png"), load_image("oil.png")
    run(f"stylize photos/sea.png -o a.png --style oil.png --refine 4 --refine-content 9 --size 24 {MODEL}")
    small = resize_image(sea, short_side=24)
    result = stylize(load_model("m.safetensors"), small, oil)
    held = refine(result, small, oil, steps=4, content_weight=9, vgg=vgg, dtype=torch.float32)
    assert_holds("a.png", held)
    assert float((held - refined(small, [oil], vgg)).abs().max()) > 2 * ROUNDING


def test_each_picture_of_a_folder_is_refined_and_resume_skips_those_that_exist(folder: Path, vgg: VGGEncoder) -> None:
    line = f"stylize photos -o out --style oil.png --refine 4 {MODEL}"
    run(line)
    for name in ("sea", "hill"):
        assert_holds(f"out/{name}.png", refined(load_image(f"photos/{name}.png"), [load_image("oil.png")], vgg))
    os.utime("out/sea.png", (1, 1))
    Path("out/hill.png").unlink()
    run(f"{line} --resume")
    assert Path("out/sea.png").stat().st_mtime == 1
    assert Path("out/hill.png").exists()


def test_the_progress_line_counts_the_steps_of_all_pictures(
    folder: Path, vgg: VGGEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates: list[int] = []
    totals: list[object] = []

    class Bar:
        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, steps: int = 1) -> None:
            updates.append(steps)

    def bar(total: int, unit: str, enabled: bool | None, piped: bool) -> Bar:
        totals.extend((total, unit, enabled))
        return Bar()

    monkeypatch.setattr(stylize_command, "progress_bar", bar)
    run(f"stylize photos -o out --style oil.png --refine 4 {MODEL}")
    assert totals == [8, "step", None]
    assert sum(updates) == 8 and len(updates) == 8, "one step at a time"
    updates.clear()
    totals.clear()
    run(f"stylize photos/sea.png -o a.png --style oil.png --refine 4 {MODEL}")
    assert totals == [4, "step", None], "a single picture has a line too: it takes a minute"
    assert sum(updates) == 4


def test_compare_refines_each_cell(folder: Path, vgg: VGGEncoder) -> None:
    run(f"compare --content photos/hill.png --style oil.png ink.png -o sheet.png --size 32 --refine 4 {MODEL}")
    sheet = load_image("sheet.png")
    content = center_square(load_image("photos/hill.png"), 32)
    for column, name in enumerate(("oil", "ink"), 1):
        cell = sheet[..., 36:, 36 * column : 36 * column + 32]
        style = center_square(load_image(f"{name}.png"), 32)
        expected = refined(content, [style], vgg)
        assert float((cell - expected).abs().max()) <= ROUNDING


@pytest.fixture
def native_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that computes bfloat16, which refinement takes unless float32 is asked for."""
    monkeypatch.setattr(sys.modules["adaattn_core.inference.refine"], "fastest_dtype", lambda device: torch.bfloat16)


@pytest.mark.parametrize("command", ["stylize photos/hill.png", "compare --size 36 --content photos/hill.png"])
def test_precision_is_that_of_the_refinement_too(
    folder: Path, vgg: VGGEncoder, native_bfloat16: None, command: str
) -> None:
    contents, painted = load_image("photos/hill.png"), {}
    for precision in ("float32", "auto"):
        run(f"{command} --style ink.png -o a.png --refine 4 --model m.safetensors --precision {precision}")
        painted[precision] = load_image("a.png")[..., -36:, -36:]
    assert not torch.equal(painted["float32"], painted["auto"])
    style = load_image("ink.png") if command.startswith("stylize") else center_square(load_image("ink.png"), 36)
    expected = refined(contents, [style], vgg)
    assert float((painted["float32"] - expected).abs().max()) <= ROUNDING


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--refine -1", "argument --refine: -1 is out of range; it must be between 0 and 10000"),
        ("--refine 10001", "argument --refine: 10001 is out of range; it must be between 0 and 10000"),
        ("--refine some", "argument --refine: 'some' is not a whole number"),
        ("--refine-content -1", "argument --refine-content: -1 is out of range; it must be 0 or above"),
    ],
)
def test_wrong_values_are_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, expected: str
) -> None:
    assert main(shlex.split(f"stylize photos/sea.png -o a.png --style oil.png {words}")) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"adaattn: {expected}") and errors.count("\n") == 1
    assert not Path("a.png").exists()
