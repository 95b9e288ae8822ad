"""`adaattn stylize` makes the same pictures as the library, with every option."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import load_image, load_model, save_image
from adaattn_core.commands import stylize as stylize_command
from adaattn_core.commands.shared import options as shared_options
from adaattn_core.inference.stylize import encode_style, stylize
from adaattn_core.io.images import load_alpha
from adaattn_core.ops.resize import resize_image
from tests.helpers.command_line import MODEL, OIL, call, run
from tests.helpers.small_models import picture

Capture = pytest.CaptureFixture[str]
ROUNDING = 0.5 / 255 + 1e-6
"""A PNG holds 8 bits."""


def painted(content: str, *styles: str, **options: Any) -> Tensor:  # noqa: ANN401 - stylize checks them
    """What the library makes of these files."""
    pictures = [load_image(f"paintings/{style}.png") for style in styles]
    return stylize(load_model("m.safetensors"), load_image(f"photos/{content}.png"), pictures, **options)


def assert_holds(path: str, expected: Tensor) -> None:
    found = load_image(path)
    assert found.shape == expected.shape
    difference = (found - expected).abs()
    assert float(difference.max()) <= ROUNDING, f"max {difference.max():.4f}, mean {difference.mean():.4f}"


def test_one_picture_is_written_and_reported_in_one_line(folder: Path, capsys: Capture) -> None:
    run(f"stylize photos/sea.png -o result.png {OIL}")
    assert_holds("result.png", painted("sea", "oil"))
    output, errors = capsys.readouterr()
    assert re.fullmatch(r"result\.png  56x40  \d+\.\d s\n", output)
    assert errors == ""


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--strength 0.4", {"strength": 0.4}),
        ("--temperature 3", {"temperature": 3.0}),
        ("--keep-color", {"keep_color": True}),
        ("--max-memory-gb 0.001", {"max_memory_gb": 0.001}),
        ("--attention sampled --seed 3", {"attention": "sampled", "seed": 3}),
    ],
)
def test_options_reach_the_library(folder: Path, words: str, options: dict[str, Any]) -> None:
    run(f"stylize photos/sea.png -o a.png {OIL} {words}")
    assert_holds("a.png", painted("sea", "oil", **options))


def test_seed_and_attention_reach_the_style(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small styles are below the number of samples, so the pictures above would not show it."""
    seen: list[tuple[object, object]] = []

    def watched(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        seen.append((options["attention"], options["seed"]))
        return encode_style(*args, **options)

    monkeypatch.setattr(shared_options, "encode_style", watched)
    run(f"stylize photos -o out --attention sampled --seed 3 {OIL}")
    assert seen == [("sampled", 3)], "once for all contents"


def test_several_styles_are_mixed(folder: Path) -> None:
    run(f"stylize photos/sea.png -o a.png {OIL} --style paintings/ink.png --style-weights .7,.3")
    assert_holds("a.png", painted("sea", "oil", "ink", style_weights=[0.7, 0.3]))


def test_a_folder_of_contents_gives_a_folder_of_results(folder: Path, capsys: Capture) -> None:
    save_image(picture(32, 32, seed=5), "photos/north/sea.jpg")
    run(f"stylize photos -o out/ {OIL}")
    assert {path.name for path in Path("out").iterdir()} == {"sea.png", "north", "hill.png"}
    assert_holds("out/hill.png", painted("hill", "oil"))
    output, errors = capsys.readouterr()
    assert re.fullmatch(r"3 pictures in out/  \d+\.\d s\n", output)
    assert errors == "", "a progress bar is for terminals"


def test_the_summary_of_one_picture_is_in_the_singular(folder: Path, capsys: Capture) -> None:
    run(f"stylize photos -o out/ {OIL}")
    Path("out/hill.png").unlink()
    capsys.readouterr()
    run(f"stylize photos -o out/ {OIL} --resume")
    assert re.match(r"1 picture in out/, \d+ skipped that already existed  ", capsys.readouterr().out)


def test_one_content_goes_into_a_folder_that_exists(folder: Path) -> None:
    run(f"stylize photos/sea.png -o out {OIL}")
    assert_holds("out/sea.png", painted("sea", "oil"))


def test_each_style_of_a_folder_is_used_alone(folder: Path) -> None:
    run(f"stylize 'photos/*.png' --style paintings -o out {MODEL}")
    names = {f"{content}__{style}.png" for content in ("sea", "hill") for style in ("oil", "ink")}
    assert {path.name for path in Path("out").iterdir()} == names
    assert_holds("out/hill__ink.png", painted("hill", "ink"))


def test_size_is_the_short_side_of_the_content(folder: Path) -> None:
    run(f"stylize photos/sea.png -o a.png --size 20 {OIL}")
    content = resize_image(load_image("photos/sea.png"), short_side=20)
    assert content.shape == (1, 3, 20, 28)
    assert_holds("a.png", stylize(load_model("m.safetensors"), content, load_image("paintings/oil.png")))


@pytest.mark.parametrize(("style_size", "side"), [("20", 20), ("64", 32), ("0", 32)])
def test_style_size_only_reduces(folder: Path, style_size: str, side: int) -> None:
    run(f"stylize photos/sea.png -o a.png --style-size {style_size} {OIL}")
    style = resize_image(load_image("paintings/oil.png"), short_side=side)
    assert_holds("a.png", stylize(load_model("m.safetensors"), load_image("photos/sea.png"), style))


def test_content_mask_limits_the_result(folder: Path) -> None:
    left = torch.zeros(1, 3, 40, 56)
    left[..., :28] = 1
    save_image(left, "mask.png")
    run(f"stylize photos/sea.png -o a.png --content-mask mask.png {OIL}")
    assert_holds("a.png", painted("sea", "oil", content_mask=left[:, :1]))
    assert torch.equal(load_image("a.png")[..., 28:], load_image("photos/sea.png")[..., 28:])


def test_style_masks_belong_to_the_styles(folder: Path) -> None:
    top = torch.zeros(1, 3, 20, 32)
    top[..., :10, :] = 1
    save_image(top, "mask.png")
    run(f"stylize photos/sea.png -o a.png {OIL} --style paintings/ink.png --style-mask none --style-mask mask.png")
    assert_holds("a.png", painted("sea", "oil", "ink", style_masks=[None, top[:, :1]]))


def test_transparency_is_kept(folder: Path) -> None:
    alpha = torch.zeros(1, 1, 40, 56)
    alpha[..., 16:] = 1
    save_image(picture(40, 56), "cut.png", alpha=alpha)
    run(f"stylize cut.png -o a.png --size 20 {OIL}")
    found = load_alpha("a.png")
    assert found is not None
    assert found.shape == (1, 1, 20, 28)
    assert float(found[..., :6].max()) == 0
    assert float(found[..., 10:].min()) == 1


def test_a_broken_content_does_not_stop_the_others(folder: Path, capsys: Capture) -> None:
    Path("photos/bad.png").write_bytes(Path("photos/sea.png").read_bytes()[:200])
    assert call(f"stylize photos -o out {OIL}") == 2
    assert {path.name for path in Path("out").iterdir()} == {"sea.png", "hill.png"}
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(
        "adaattn: 1 of 3 pictures failed, the others are done. The first failure: photos/bad.png is damaged"
    )
    assert errors.count("\n") == 1


def test_running_out_of_memory_does_not_stop_the_others(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short_of_memory(model: object, content: Tensor, *args: object, **options: object) -> Tensor:
        if content.shape[-1] == 56:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried"
            )
        return content

    monkeypatch.setattr(stylize_command, "stylize", short_of_memory)
    assert call(f"stylize photos -o out {OIL}") == 2
    assert [path.name for path in Path("out").iterdir()] == ["hill.png"]
    assert "1 of 2 pictures failed, the others are done. The first failure: out of memory." in capsys.readouterr().err
