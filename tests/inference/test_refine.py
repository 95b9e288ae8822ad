"""Refinement: what it moves pixels towards, what it leaves alone, and how it ends when something is wrong."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core.inference import refine as module
from adaattn_core.inference.refine import Scale, plan_scales, refine
from adaattn_core.models.encoder import VGGEncoder
from adaattn_core.ops.statistics import normalize_channels, position_weights, weighted_mean_std
from tests.helpers.small_models import picture, small_model


@pytest.fixture(scope="module")
def vgg() -> VGGEncoder:
    """VGG-19's shape with a few channels and seeded weights."""
    return small_model().encoder


def refined(vgg: VGGEncoder, *pictures: Any, **options: Any) -> Tensor:
    """`refine` in float32, with few steps."""
    return refine(*pictures, **{"steps": 6, "vgg": vgg, "dtype": torch.float32, **options})


def style_error(vgg: VGGEncoder, image: Tensor, style: Tensor) -> float:
    """Relative distance of the channel statistics of relu2_1 to relu5_1."""
    with torch.no_grad():
        a, b = vgg(image), vgg(style)
    errors = []
    for level in module.GLOBAL_LEVELS:
        x, y = (torch.cat(weighted_mean_std(features[level], None)) for features in (a, b))
        errors.append(float((x - y).norm() / y.norm()))
    return sum(errors) / len(errors)


@pytest.mark.parametrize(
    ("short_side", "expected"),
    [
        (100, [Scale(100, 60, 0.02)]),
        (256, [Scale(256, 60, 0.02)]),
        (300, [Scale(256, 60, 0.02), Scale(300, 10, 0.008)]),
        (512, [Scale(256, 60, 0.02), Scale(512, 10, 0.008)]),
        (3000, [Scale(256, 60, 0.02), Scale(512, 10, 0.008), Scale(1024, 5, 0.008)]),
    ],
)
def test_scales_go_from_coarse_to_fine_and_never_above_the_picture(short_side: int, expected: list[Scale]) -> None:
    assert plan_scales(short_side, 60) == expected


def test_the_picture_comes_nearer_to_the_style_and_to_the_attention_target(vgg: VGGEncoder) -> None:
    content, style = picture(48, 64, seed=1), picture(40, 40, seed=2) ** 3
    result = refined(vgg, content, content, style, steps=30)
    assert result.shape == content.shape and result.dtype == torch.float32
    assert float(result.min()) >= 0 and float(result.max()) <= 1
    assert style_error(vgg, result, style) < 0.65 * style_error(vgg, content, style)
    settings = module._Settings(vgg, torch.float32, 1.0, 0.0, 1.0)
    target = module._make_target(settings, module._Job(content, [style], [None], [1.0], None), content)
    before, after = (float(module._loss(settings, target, x)) for x in (content, result))
    assert after < 0.6 * before


def test_flat_pictures_stay_finite_and_go_to_the_colour_of_a_flat_style(vgg: VGGEncoder) -> None:
    content, style = torch.full((1, 3, 32, 32), 0.4), torch.full((1, 3, 32, 32), 0.7)
    result = refined(vgg, content, content, style, steps=40)
    assert result.isfinite().all()
    assert (result - 0.7).abs().mean() < (content - 0.7).abs().mean()


def test_no_steps_return_the_picture_itself(vgg: VGGEncoder) -> None:
    image = picture(32, 32, seed=3)
    assert refined(vgg, image, picture(32, 32), picture(32, 32), steps=0) is image


def test_strength_0_returns_the_content_and_lower_strength_stays_nearer_to_it(vgg: VGGEncoder) -> None:
    content, style = picture(32, 48, seed=1), picture(32, 32, seed=2) ** 3
    assert torch.equal(refined(vgg, content, content, style, strength=0), content)
    distances = [
        float((refined(vgg, content, content, style, strength=strength, steps=20) - content).abs().mean())
        for strength in (0.3, 0.6, 1.0)
    ]
    assert distances == sorted(distances)


def test_content_weight_keeps_the_shapes_of_the_content(vgg: VGGEncoder) -> None:
    content, style = picture(48, 48, seed=1), picture(48, 48, seed=2) ** 3

    def shapes(image: Tensor) -> Tensor:
        with torch.no_grad():
            return normalize_channels(vgg(image)[module.CONTENT_LEVEL])

    free, held = (refined(vgg, content, content, style, content_weight=w, steps=20) for w in (0.0, 50.0))
    assert (shapes(held) - shapes(content)).norm() < (shapes(free) - shapes(content)).norm()


def test_outside_the_mask_it_is_the_content_exactly(vgg: VGGEncoder) -> None:
    content, image, style = picture(32, 48, seed=1), picture(32, 48, seed=3), picture(32, 32, seed=2)
    mask = torch.zeros(1, 1, 32, 48)
    mask[..., :24] = 1
    result = refined(vgg, image, content, style, content_mask=mask)
    assert torch.equal(result[..., 24:], content[..., 24:])
    assert (result[..., :24] - content[..., :24]).abs().mean() > 0.01


def test_a_batch_is_its_items(vgg: VGGEncoder) -> None:
    content, style = picture(32, 48, batch=2, seed=1), picture(32, 32, batch=2, seed=2)
    whole = refined(vgg, content, content, style)
    for index in range(2):
        item = slice(index, index + 1)
        assert torch.equal(whole[item], refined(vgg, content[item], content[item], style[item]))


def test_the_same_arguments_give_the_same_picture_and_the_global_generator_is_left_alone(vgg: VGGEncoder) -> None:
    content, style = picture(32, 32, seed=1), picture(32, 32, seed=2)
    state = torch.get_rng_state()
    first, second = (refined(vgg, content, content, style) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_inference_mode_makes_no_difference(vgg: VGGEncoder) -> None:
    """Nodes of ComfyUI run in it, and so may the load of the network."""
    content, style, mask = picture(32, 32, seed=1), picture(32, 32, seed=2), torch.ones(1, 1, 32, 32)
    expected = refined(vgg, content, content, style, content_mask=mask, style_masks=[mask])
    with torch.inference_mode():
        loaded = small_model().encoder
        inputs = [one.clone() for one in (content, style, mask)]
        assert all(one.is_inference() for one in (*inputs, *loaded.parameters()))
        result = refined(loaded, inputs[0], inputs[0], inputs[1], content_mask=inputs[2], style_masks=[inputs[2]])
    assert torch.equal(result, expected)


def test_a_style_without_weight_does_not_count(vgg: VGGEncoder) -> None:
    content, style, other = picture(32, 32, seed=1), picture(32, 48, seed=2), picture(64, 32, seed=3)
    alone = refined(vgg, content, content, style)
    mixed = refined(vgg, content, content, [style, other], style_weights=[1, 0])
    assert torch.allclose(alone, mixed, atol=1e-5)
    assert not torch.allclose(alone, refined(vgg, content, content, [style, other]), atol=1e-3)


def test_a_style_mask_chooses_the_part_of_the_style(vgg: VGGEncoder) -> None:
    """Dark and bright halves: the picture follows the half that the mask shows."""
    content = 0.5 + 0.1 * (picture(48, 48, seed=1) - 0.5)
    style = torch.cat([0.1 * picture(64, 64, seed=2), 0.9 + 0.1 * picture(64, 64, seed=3)], dim=3)
    mask = torch.zeros(1, 1, 64, 128)
    mask[..., :48] = 1
    dark = refined(vgg, content, content, style, style_masks=[mask], steps=30)
    bright = refined(vgg, content, content, style, style_masks=[mask.flip(3)], steps=30)
    assert float(dark.mean()) < float(content.mean()) < float(bright.mean())


def test_weighted_statistics_are_those_of_the_positions_with_weight() -> None:
    features = torch.tensor([[[[1.0, 3.0, 100.0, 100.0]]]])
    weights = position_weights(torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]]), features)
    mean, std = weighted_mean_std(features, weights)
    assert float(mean) == pytest.approx(2) and float(std) == pytest.approx(1, abs=1e-4)


def test_keep_color_takes_only_brightness(vgg: VGGEncoder) -> None:
    content, style = 0.25 + 0.5 * picture(32, 32, seed=1), picture(32, 32, seed=2)
    result = refined(vgg, content, content, style, keep_color=True)
    luma = torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]
    chroma, wanted = (x - (x * luma).sum(dim=1, keepdim=True) for x in (result, content))
    cosine = torch.nn.functional.cosine_similarity(chroma, wanted, dim=1)
    assert float(cosine.mean()) > 0.999


def test_activations_computed_again_give_the_same_picture(vgg: VGGEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    content, style = picture(32, 32, seed=1), picture(32, 32, seed=2)
    kept = refined(vgg, content, content, style)
    monkeypatch.setattr(module, "KEPT_PIXELS", 0)
    assert torch.equal(kept, refined(vgg, content, content, style))


def test_the_change_of_the_coarse_steps_is_added_to_the_full_picture(
    vgg: VGGEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coarse steps that brighten everything by .1 brighten the full picture by .1 and lose none of its detail."""
    monkeypatch.setattr(module, "_optimize", lambda settings, job, start, *rest: (start + 0.1).clamp(0, 1))
    monkeypatch.setattr(module, "plan_scales", lambda short_side, steps: [Scale(32, 1, 0.1)])
    image = 0.2 + 0.5 * picture(96, 96, seed=1)
    result = refined(vgg, image, image, picture(32, 32))
    assert torch.allclose(result, image + 0.1, atol=1e-5)


def test_progress_rises_to_1_and_may_stop_the_work(vgg: VGGEncoder) -> None:
    content, style = picture(32, 32, seed=1), picture(32, 32, seed=2)
    told: list[float] = []
    refined(vgg, content, content, style, progress=told.append)
    assert told == sorted(told) and told[-1] == 1 and len(told) > 6 * len(vgg.layers)

    def stop(done: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        refined(vgg, content, content, style, progress=stop)
    assert not any(layer._forward_pre_hooks for layer in vgg.layers.values()), "no hook stays behind"


def test_previews_show_the_picture_of_each_step(vgg: VGGEncoder) -> None:
    shown: list[Tensor] = []
    content = picture(32, 48, seed=1)
    refined(vgg, content, content, picture(32, 32, seed=2), preview=shown.append)
    assert [tuple(one.shape) for one in shown] == [(1, 3, 32, 48)] * 6
    assert all(float(one.min()) >= 0 and float(one.max()) <= 1 for one in shown)


def test_a_fine_scale_without_memory_is_left_out_and_said(
    vgg: VGGEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    optimize = module._optimize

    def short_of_memory(settings: Any, job: Any, start: Tensor, *rest: Any) -> Tensor:
        if min(start.shape[-2:]) > 32:
            raise torch.OutOfMemoryError("out of memory")
        return optimize(settings, job, start, *rest)

    monkeypatch.setattr(module, "_optimize", short_of_memory)
    monkeypatch.setattr(module, "plan_scales", lambda short_side, steps: [Scale(32, 3, 0.02), Scale(64, 1, 0.01)])
    content = picture(64, 64, seed=1)
    with caplog.at_level(logging.WARNING):
        result = refined(vgg, content, content, picture(32, 32, seed=2))
    assert result.shape == content.shape and not torch.equal(result, content)
    assert "no memory for steps at 64x64 pixels" in caplog.text
    monkeypatch.setattr(module, "plan_scales", lambda short_side, steps: [Scale(64, 1, 0.01)])
    with pytest.raises(torch.OutOfMemoryError):
        refined(vgg, content, content, picture(32, 32, seed=2))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"steps": -1}, "refine steps are -1; a whole number from 0 to 10000 is needed"),
        ({"steps": 1e9}, "refine steps are 1000000000.0; a whole number from 0 to 10000"),
        ({"steps": 2.5}, "refine steps are 2.5; a whole number"),
        ({"strength": 1.5}, "strength is 1.5; it must be between 0 and 1"),
        ({"content_weight": -1.0}, "content_weight is -1.0; it must be 0 or above"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ({"style_masks": [None, None]}, "2 style masks came for 1 style"),
        ({"style_weights": [1.0, 2.0]}, "2 style weights came for 1 style"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(vgg: VGGEncoder, change: dict[str, Any], text: str) -> None:
    content = picture(32, 32)
    with pytest.raises(ValueError) as error:
        refined(vgg, content, content, picture(32, 32), **change)
    assert text in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("image", "content", "style", "text"),
    [
        (
            (32, 32),
            (32, 48),
            (32, 32),
            "the image to refine is 1 picture of 32x32 pixels, the content 1 picture of 48x32 pixels",
        ),
        ((32, 32), (32, 32), (15, 32), "the style is 32x15 pixels; at least 16x16 are needed"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(
    vgg: VGGEncoder, image: tuple[int, int], content: tuple[int, int], style: tuple[int, int], text: str
) -> None:
    with pytest.raises(ValueError, match=text.replace("(", r"\(")):
        refined(vgg, picture(*image), picture(*content), picture(*style))
    with pytest.raises(ValueError, match="3 styles came for 2 contents; give 1 style, or 2"):
        refined(vgg, *(picture(32, 32, batch=2) for _ in range(2)), picture(32, 32, batch=3))
