"""The built-in model as it ships: what its pictures must have, whatever run it came from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaattn_core import StyleTransferModel, load_image, load_model, stylize
from adaattn_core.checkpoints.vgg import load_vgg
from adaattn_core.evaluation.metrics import patch_distance
from adaattn_core.ops.resize import resize_image

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def model() -> StyleTransferModel:
    return load_model("compact")


def example(name: str) -> Tensor:
    return resize_image(load_image(EXAMPLES / name), short_side=128)


@pytest.mark.parametrize("level", ["relu3_1", "relu4_1", "relu5_1"])
def test_every_level_has_a_part_in_the_picture(level: str, model: StyleTransferModel) -> None:
    content, style = example("coffee.jpg"), example("great_wave.jpg")
    size = (content.shape[-2], content.shape[-1])
    with torch.no_grad():
        features, painted = model.encoder(content), model.fusion.encode_style(model.encoder(style))
        statistics = model.fusion.statistics(features, [painted], [1.0])
        whole = model.decode(model.fusion.merge(model.fusion.apply_statistics(features, statistics)), size)
        mean, std = statistics[level]
        statistics[level] = mean.flip(1), std.flip(1)  # those of other channels
        other = model.decode(model.fusion.merge(model.fusion.apply_statistics(features, statistics)), size)
    assert float((whole - other).abs().mean()) > 0.25 / 255  # a level that died gives 0 exactly; relu5_1 has least


def test_the_result_has_the_styles_colours_and_not_the_contents(model: StyleTransferModel) -> None:
    content = example("coffee.jpg")
    for name in ("great_wave.jpg", "poppies.jpg", "composition_viii.jpg"):
        style = example(name)
        result = stylize(model, content, style)
        own, wanted, found = (x.mean(dim=(0, 2, 3)) for x in (content, style, result))
        assert float((found - wanted).norm()) < 0.5 * float((own - wanted).norm()), name


@pytest.mark.slow
def test_more_strength_brings_the_patches_of_the_picture_closer_to_those_of_the_style(
    model: StyleTransferModel,
) -> None:
    """On average over four pairs; single steps of one pair may move the other way by a hundredth."""
    vgg = load_vgg(normalized=True)
    pairs = ("coffee auvers", "chelsea great_wave", "astronaut poppies", "ramparts composition_viii")

    def distance(pair: str, strength: float) -> float:
        content, style = (example(f"{name}.jpg") for name in pair.split())
        with torch.no_grad():
            painted, wanted = (vgg(x)["relu4_1"] for x in (stylize(model, content, style, strength=strength), style))
        return float(patch_distance(painted, wanted))

    means = [sum(distance(pair, strength) for pair in pairs) / len(pairs) for strength in (0, 0.25, 0.5, 0.75, 1)]
    assert means == sorted(means, reverse=True), means
    assert means[0] - means[-1] > 0.05


def test_a_larger_stroke_size_paints_larger_strokes(model: StyleTransferModel) -> None:
    """By how far what is painted looks like itself: columns, interpolated, until its autocorrelation is a half."""
    content, style = (
        resize_image(load_image(EXAMPLES / name), short_side=192) for name in ("ramparts.jpg", "auvers.jpg")
    )

    def width(stroke_size: float) -> float:
        change = (stylize(model, content, style, stroke_size=stroke_size) - content).mean(dim=(0, 1))
        change = change - change.mean()
        power = torch.fft.rfft2(change, s=[2 * side for side in change.shape]).abs().square()
        correlation = torch.fft.irfft2(power)[0]
        correlation = correlation / correlation[0]
        end = int((correlation > 0.5).to(torch.int).argmin())
        before, after = float(correlation[end - 1]), float(correlation[end])
        return end - (0.5 - after) / (before - after)

    widths = [width(stroke_size) for stroke_size in (0, 4, 8)]
    assert widths == sorted(set(widths)), widths
