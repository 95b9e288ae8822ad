"""The option --region of `adaattn stylize`: the pictures that the library makes with `region_masks`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaattn_core import load_image, load_model, save_image, stylize
from adaattn_core.cli import main
from adaattn_core.io.images import load_color_and_alpha
from tests.helpers.command_line import MODEL, OIL, run
from tests.helpers.comparison import assert_same
from tests.helpers.small_models import picture

ROUNDING = 0.5 / 255 + 1e-6
"""A PNG holds 8 bits."""
LEFT = (torch.arange(56) < 28).float().expand(1, 1, 40, 56)
TOP = (torch.arange(40) < 12).float()[:, None].expand(1, 1, 40, 56)
SEA = "stylize photos/sea.png -o a.png"


@pytest.fixture(autouse=True)
def masks(folder: Path) -> None:
    for name, mask in (("left", LEFT), ("top", TOP), ("black", 0 * LEFT), ("square", LEFT[..., :40])):
        save_image(mask.expand(-1, 3, -1, -1), f"{name}.png")


def image(name: str) -> Tensor:
    return load_image(f"{'photos' if name == 'sea' else 'paintings'}/{name}.png")


def assert_holds(names: list[str], masks: list[Tensor | None], weights: list[float] | None = None) -> None:
    wanted = stylize(
        load_model("m.safetensors"), image("sea"), [image(name) for name in names], region_masks=masks,
        style_weights=weights,
    )  # fmt: skip
    assert_same(load_image("a.png"), wanted, ROUNDING)


def test_a_region_has_its_style_and_the_other_style_the_rest() -> None:
    run(f"{SEA} {OIL} --region left.png paintings/ink.png")
    assert_holds(["oil", "ink"], [None, LEFT])


def test_without_another_style_the_content_stays_outside_the_regions() -> None:
    save_image(picture(40, 40, seed=5), "paintings/third.png")
    run(f"{SEA} --region left.png paintings/ink.png --region top.png paintings/third.png {MODEL}")
    assert_holds(["ink", "third"], [LEFT, TOP])
    assert torch.equal(load_image("a.png")[..., 12:, 28:], image("sea")[..., 12:, 28:])


def test_the_content_mask_is_the_region_of_the_other_styles_whose_weights_sum_to_that_of_a_region() -> None:
    mix = "--style paintings/ink.png --style-weights 3,1 --content-mask top.png"
    run(f"{SEA} {OIL} {mix} --region left.png paintings/oil.png")
    assert_holds(["oil", "ink", "oil"], [TOP, TOP, LEFT], [0.75, 0.25, 1])


def test_regions_go_with_each_style_of_a_folder_and_with_a_stroke_size() -> None:
    run(f"stylize photos/sea.png --style paintings -o out --stroke-size 8 --region left.png paintings/ink.png {MODEL}")
    pictures = [image("oil"), image("ink")]
    wanted = stylize(load_model("m.safetensors"), image("sea"), pictures, region_masks=[None, LEFT], stroke_size=8)
    assert_same(load_image("out/sea__oil.png"), wanted, ROUNDING)


def test_hidden_colours_stay_outside_the_regions() -> None:
    save_image(image("sea"), "photos/clear.png", alpha=torch.zeros(1, 1, 40, 56))
    run(f"stylize photos/clear.png -o a.png --region left.png paintings/ink.png {MODEL}")
    for path in ("a.png", "photos/clear.png"):
        alpha = load_color_and_alpha(path)[1]
        assert alpha is not None and not bool(alpha.any())
    assert torch.equal(load_image("a.png")[..., 28:], load_image("photos/clear.png")[..., 28:])


def test_a_black_mask_is_left_out_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    run(f"{SEA} {OIL} --region black.png paintings/ink.png --region left.png paintings/ink.png")
    assert_holds(["oil", "ink"], [None, LEFT])
    assert caplog.messages == ["black.png: this mask is black everywhere, so its region is left out"]


def test_black_masks_alone_give_the_content_back(caplog: pytest.LogCaptureFixture) -> None:
    run(f"{SEA} {OIL} --content-mask black.png --region black.png paintings/ink.png")
    assert torch.equal(load_image("a.png"), image("sea"))
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--region left.png", "argument --region: expected 2 arguments"),
        ("--region nope.png paintings/oil.png", "nope.png does not exist"),
        ("--region left.png nope.png", "nope.png does not exist"),
        (
            "--region left.png paintings",
            "--region left.png paintings holds 2 pictures; one picture is needed. Name the pictures.",
        ),
        ("--region square.png paintings/oil.png", "square.png: the content mask is 40x40 pixels, the content 56x40: "),
        (
            "--region left.png paintings/oil.png --refine 60",
            "--refine came with --region, which refinement does not know. Leave one of them out.",
        ),
    ],
)
def test_errors_say_what_came_and_what_is_needed(capsys: pytest.CaptureFixture[str], words: str, expected: str) -> None:
    assert main(f"{SEA} {OIL} {words}".split()) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"adaattn: {expected}") and errors.count("\n") == 1
    assert not Path("a.png").exists()


def test_a_result_does_not_replace_the_mask_of_a_region() -> None:
    assert main(f"stylize photos/sea.png -o left.png --region left.png paintings/ink.png {MODEL}".split()) == 2
    assert torch.equal(load_image("left.png")[:, :1], LEFT)
