"""What a user does, on small random models: every option against what it must not change and what it must."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaattn_core import ModelConfig, StyleTransferModel, encode_style, load_image, load_model, refine, stylize
from adaattn_core.models.encoder import VGGEncoder
from adaattn_core.models.fusion import StyleFeatures
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

stylize_module = sys.modules["adaattn_core.inference.stylize"]
painting_module = sys.modules["adaattn_core.inference.stages"]
BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_VIDEO], ids=["image", "video"])

EXAMPLES = Path(__file__).parents[2] / "examples"
CONTENT = picture(37, 50)
STYLE, OTHER = picture(45, 34, seed=1), picture(32, 48, seed=2)


@pytest.fixture(scope="module")
def model() -> StyleTransferModel:
    return small_model()


def assert_same(ours: Tensor, wanted: Tensor) -> None:
    """Equal up to float32 rounding in sums of another order."""
    torch.testing.assert_close(ours, wanted, rtol=0, atol=2e-5)


def difference(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference, in 8-bit steps."""
    return float((a - b).abs().mean()) * 255


# ---------------------------------------------------------------- what comes back


@BOTH
@pytest.mark.parametrize("size", [(16, 16), (17, 63), (64, 33), (200, 16)])
def test_result_has_the_contents_size_and_range(config: ModelConfig, size: tuple[int, int]) -> None:
    content = picture(*size)
    before = content.clone()
    result = stylize(small_model(config=config), content, STYLE)
    assert result.shape == content.shape and result.dtype == torch.float32
    assert result.min() >= 0 and result.max() <= 1
    assert not result.requires_grad
    assert torch.equal(content, before)


def test_the_style_decides_the_result(model: StyleTransferModel) -> None:
    result = stylize(model, CONTENT, STYLE)
    assert result.min() > 0 and result.max() < 1  # nothing below is hidden by the clamp
    assert difference(result, stylize(model, CONTENT, OTHER)) > 2
    assert difference(result, CONTENT) > 10


def test_full_strength_is_the_models_own_forward(model: StyleTransferModel) -> None:
    assert_same(stylize(model, CONTENT, STYLE), model(CONTENT, STYLE).clamp(0, 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_content_and_style_of_any_float_type(model: StyleTransferModel, dtype: torch.dtype) -> None:
    result = stylize(model, CONTENT.to(dtype), STYLE.to(dtype))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, stylize(model, CONTENT.to(dtype).float(), STYLE.to(dtype).float()))


def test_values_outside_the_range_are_clamped_first(model: StyleTransferModel) -> None:
    loud = 2 * CONTENT - 0.5
    assert torch.equal(stylize(model, loud, STYLE), stylize(model, loud.clamp(0, 1), STYLE))
    assert torch.equal(stylize(model, loud, STYLE, strength=0), loud.clamp(0, 1))


def test_memory_layout_does_not_matter(model: StyleTransferModel) -> None:
    turned = CONTENT.mT.contiguous().mT.to(memory_format=torch.channels_last)
    assert_same(stylize(model, turned, STYLE), stylize(model, CONTENT, STYLE))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("content", "style"), [("rocket", "great_wave"), ("astronaut", "composition_viii")])
def test_half_precision_is_close_on_real_pictures(dtype: torch.dtype, content: str, style: str) -> None:
    """Under 2/255 everywhere and 0.5/255 on average, with the built-in model; a night sky strays furthest."""
    pictures = [
        F.interpolate(load_image(EXAMPLES / f"{name}.jpg"), size=(192, 192), mode="bilinear", antialias=True)
        for name in (content, style)
    ]
    exact, half = (stylize(load_model(dtype=dtype), *pictures) for dtype in (torch.float32, dtype))
    assert half.dtype == torch.float32 and not torch.equal(half, exact)
    assert difference(half, exact) < 0.5
    assert (half - exact).abs().max() < 2 / 255


def test_half_precision_is_the_decoders_and_what_leads_to_attention_stays_exact() -> None:
    model = small_model().set_precision(torch.bfloat16)
    assert model.precision == torch.bfloat16
    assert {p.dtype for part in (model.encoder, model.fusion.attention) for p in part.parameters()} == {torch.float32}
    assert {p.dtype for p in model.fusion.merge_conv.parameters()} == {torch.bfloat16}
    dtypes = [p.dtype for p in model.decoder.parameters()]
    assert set(dtypes[:4]) == {torch.bfloat16} and set(dtypes[4:]) == {torch.float32}  # weights and biases of two
    dtypes = [p.dtype for p in small_model().set_precision(torch.float16).decoder.parameters()]
    assert set(dtypes[:-2]) == {torch.float16} and set(dtypes[-2:]) == {torch.float32}  # the picture's own rounding
    assert {p.dtype for p in small_model().set_precision(torch.float64).parameters()} == {torch.float64}


def test_little_memory_gives_the_same_picture(model: StyleTransferModel) -> None:
    assert_same(stylize(model, CONTENT, STYLE, max_memory_gb=1e-6), stylize(model, CONTENT, STYLE))


# ---------------------------------------------------------------- content as its own style


def test_a_plain_wall_as_its_own_style_comes_back_as_the_decoder_paints_it() -> None:
    """One colour everywhere: each level's values are one value, M is it and S is 0; with h the identity these are the
    content's own features, and what is left is the decoder."""
    model = small_model()
    with torch.random.fork_rng(devices=[]):
        model.fusion.initialize()
    wall = torch.tensor([0.8, 0.3, 0.5])[None, :, None, None].expand(1, 3, 32, 40)
    own = model.decode(model.fusion.merge(model.encoder(wall)), (32, 40))
    assert_same(stylize(model, wall, wall), own.clamp(0, 1))


def test_sharp_attention_to_itself_is_the_decoder_alone() -> None:
    """With f = g, the cosine is largest, 1, at the very same position; at a low temperature nothing else counts, so M
    is the content's own feature and S is 0 (h being the identity)."""
    model = small_model(config=SMALL_VIDEO)
    with torch.random.fork_rng(devices=[]):
        model.fusion.initialize()
    own = model.decode(model.fusion.merge(model.encoder(CONTENT, "relu3_1")), (37, 50))
    assert difference(stylize(model, CONTENT, CONTENT), own) > 0.3
    result = stylize(model, CONTENT, CONTENT, temperature=2e-5)
    torch.testing.assert_close(result, own.clamp(0, 1), rtol=0, atol=1e-3)


# ---------------------------------------------------------------- strength and temperature


@BOTH
def test_strength_goes_from_the_content_to_the_style_evenly(config: ModelConfig) -> None:
    model = small_model(config=config)
    steps = [stylize(model, CONTENT, STYLE, strength=strength) for strength in (0, 0.25, 0.5, 0.75, 1)]
    assert difference(steps[0], CONTENT) == 0
    assert torch.equal(steps[-1], stylize(model, CONTENT, STYLE))
    from_content = [difference(step, CONTENT) for step in steps]
    to_style = [difference(step, steps[-1]) for step in steps]
    assert from_content == sorted(from_content) and to_style == sorted(to_style, reverse=True)
    assert all(later > earlier + 1 for earlier, later in zip(from_content, from_content[1:], strict=False))


def test_strength_is_continuous_at_both_ends(model: StyleTransferModel) -> None:
    assert difference(stylize(model, CONTENT, STYLE, strength=0.001), CONTENT) < 0.5
    assert difference(stylize(model, CONTENT, STYLE, strength=0.999), stylize(model, CONTENT, STYLE)) < 0.5


def test_a_high_temperature_takes_the_style_as_a_whole(model: StyleTransferModel) -> None:
    """Uniform attention: its statistics do not depend on the content position, and the picture not on f."""
    hot = stylize(model, CONTENT, STYLE, temperature=1e9)
    changed = small_model()
    for name, parameter in changed.fusion.named_parameters():
        if name.endswith("query_proj.weight"):
            nn.init.ones_(parameter)
    assert_same(stylize(changed, CONTENT, STYLE, temperature=1e9), hot)
    assert difference(stylize(changed, CONTENT, STYLE), stylize(model, CONTENT, STYLE)) > 0.5
    assert difference(stylize(model, CONTENT, STYLE), hot) > 0.5


# ---------------------------------------------------------------- styles


@pytest.mark.parametrize("attention", ["exact", "sampled"])
def test_an_encoded_style_gives_what_the_picture_gives(
    model: StyleTransferModel, attention: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painting_module, "SAMPLED_POSITIONS", 20)
    painted = encode_style(model, STYLE, attention=attention, seed=3)
    wanted = stylize(model, CONTENT, STYLE, attention=attention, seed=3)
    assert torch.equal(stylize(model, CONTENT, painted), wanted)
    assert torch.equal(stylize(model, CONTENT, [painted]), wanted)  # nothing was used up


def test_all_weight_on_one_style_is_that_style(model: StyleTransferModel) -> None:
    alone = [stylize(model, CONTENT, style) for style in (STYLE, OTHER)]
    assert torch.equal(stylize(model, CONTENT, [STYLE, OTHER], style_weights=[1, 0]), alone[0])
    assert torch.equal(stylize(model, CONTENT, [STYLE, OTHER], style_weights=[0, 5]), alone[1])
    assert_same(stylize(model, CONTENT, [STYLE, STYLE], style_weights=[0.3, 0.9]), alone[0])


def test_weights_follow_their_styles_and_only_their_shares_count(model: StyleTransferModel) -> None:
    mixed = stylize(model, CONTENT, [STYLE, OTHER], style_weights=[0.75, 0.25])
    assert_same(stylize(model, CONTENT, [STYLE, OTHER], style_weights=[6, 2]), mixed)
    assert_same(stylize(model, CONTENT, [OTHER, STYLE], style_weights=[0.25, 0.75]), mixed)
    assert difference(stylize(model, CONTENT, [STYLE, OTHER], style_weights=[0.25, 0.75]), mixed) > 0.5
    even = stylize(model, CONTENT, [STYLE, OTHER], style_weights=[1, 1])
    assert torch.equal(stylize(model, CONTENT, (STYLE, OTHER)), even)
    assert difference(mixed, stylize(model, CONTENT, STYLE)) < difference(even, stylize(model, CONTENT, STYLE))


def test_pictures_and_encoded_styles_mix(model: StyleTransferModel) -> None:
    mixed = stylize(model, CONTENT, [encode_style(model, STYLE), OTHER])
    assert torch.equal(mixed, stylize(model, CONTENT, [STYLE, OTHER]))


# ---------------------------------------------------------------- content masks


def disc(height: int, width: int) -> Tensor:
    """(1, 1, height, width): 1 inside, 0 outside, a slope of 5 pixels between."""
    y, x = torch.meshgrid(torch.arange(height) - height / 2, torch.arange(width) - width / 2, indexing="ij")
    return ((15 - (x**2 + y**2).sqrt()) / 5).clamp(0, 1)[None, None]


@pytest.mark.parametrize("options", [{}, {"strength": 0.5}, {"keep_color": True}])
def test_a_content_mask_chooses_between_content_and_result(model: StyleTransferModel, options: dict[str, Any]) -> None:
    mask, full = disc(37, 50), stylize(model, CONTENT, STYLE, **options)
    result = stylize(model, CONTENT, STYLE, content_mask=mask, **options)
    inside, outside = (mask == 1).expand_as(full), (mask == 0).expand_as(full)
    feather = ~inside & ~outside
    assert inside.any() and outside.any() and feather.any()
    assert torch.equal(result[outside], CONTENT[outside])
    assert torch.equal(result[inside], full[inside])
    blend = mask * full + (1 - mask) * CONTENT
    torch.testing.assert_close(result[feather], blend[feather], rtol=0, atol=1e-6)


def test_masks_of_one_value(model: StyleTransferModel) -> None:
    full = stylize(model, CONTENT, STYLE)
    assert torch.equal(stylize(model, CONTENT, STYLE, content_mask=torch.zeros(37, 50)), CONTENT)
    assert torch.equal(stylize(model, CONTENT, STYLE, content_mask=torch.ones(37, 50)), full)


@pytest.mark.parametrize("shape", [(37, 50), (1, 37, 50), (1, 1, 37, 50)])
def test_masks_of_any_rank(model: StyleTransferModel, shape: tuple[int, ...]) -> None:
    wanted = stylize(model, CONTENT, STYLE, content_mask=disc(37, 50))
    assert torch.equal(stylize(model, CONTENT, STYLE, content_mask=disc(37, 50).reshape(shape)), wanted)


def test_a_mask_is_resized_to_its_picture(model: StyleTransferModel) -> None:
    """Left half 0, right half 1, at twice the size: exact away from the border between them."""
    mask = (torch.arange(100) >= 50).float().expand(74, 100)
    result, full = stylize(model, CONTENT, STYLE, content_mask=mask), stylize(model, CONTENT, STYLE)
    assert torch.equal(result[..., :24], CONTENT[..., :24])
    assert_same(result[..., 26:], full[..., 26:])


def test_one_mask_for_each_content(model: StyleTransferModel) -> None:
    content = torch.cat([CONTENT, CONTENT])
    mask = torch.stack([torch.zeros(1, 37, 50), torch.ones(1, 37, 50)])
    result = stylize(model, content, STYLE, content_mask=mask)
    assert torch.equal(result[:1], CONTENT)
    assert_same(result[1:], stylize(model, CONTENT, STYLE))


# ---------------------------------------------------------------- style masks


def left_half(height: int, width: int) -> Tensor:
    return (torch.arange(width) < width // 2).float().expand(1, 1, height, width)


def test_a_white_style_mask_is_no_mask(model: StyleTransferModel) -> None:
    result = stylize(model, CONTENT, STYLE, style_masks=[torch.ones(45, 34)])
    assert_same(result, stylize(model, CONTENT, STYLE))


def painted_over(style: StyleFeatures) -> StyleFeatures:
    """Other keys and values wherever the mask is False."""
    changed = {}
    for level, (key, value, mask, _) in style.items():
        assert mask is not None
        hidden = ~mask[..., None]
        changed[level] = style[level]._replace(
            key=torch.where(hidden, -key, key), value=torch.where(hidden, 3 - value, value)
        )
    return changed


def test_what_is_masked_out_of_a_style_has_no_effect(model: StyleTransferModel) -> None:
    style = encode_style(model, STYLE, mask=left_half(45, 34))
    result = stylize(model, CONTENT, style)
    assert_same(stylize(model, CONTENT, painted_over(style)), result)
    assert torch.equal(stylize(model, CONTENT, STYLE, style_masks=[left_half(45, 34)]), result)
    assert difference(result, stylize(model, CONTENT, STYLE)) > 0.5
    unmasked = {level: one._replace(mask=None) for level, one in painted_over(style).items()}
    assert difference(result, stylize(model, CONTENT, unmasked)) > 0.5


def test_masks_belong_to_their_styles(model: StyleTransferModel) -> None:
    mask = left_half(32, 48)
    mixed = stylize(model, CONTENT, [STYLE, OTHER], style_masks=[None, mask])
    assert torch.equal(
        mixed, stylize(model, CONTENT, [encode_style(model, STYLE), encode_style(model, OTHER, mask=mask)])
    )
    assert difference(mixed, stylize(model, CONTENT, [STYLE, OTHER])) > 0.2


@pytest.mark.parametrize("attention", ["exact", "sampled"])
def test_a_dot_is_enough_of_a_style_mask(
    model: StyleTransferModel, attention: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller than a position of relu5_1, between all that nearest resizing looks at."""
    monkeypatch.setattr(painting_module, "SAMPLED_POSITIONS", 4)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 35, 21] = 1
    style = encode_style(model, picture(64, 64), mask=mask, attention=attention)
    assert all(one.mask is not None and one.mask.sum() == 1 for one in style.values())
    assert stylize(model, CONTENT, style).isfinite().all()


# ---------------------------------------------------------------- colour

LUMA = torch.tensor([0.2126, 0.7152, 0.0722])[:, None, None]


def test_keep_color_takes_brightness_from_the_result(model: StyleTransferModel) -> None:
    kept, full = (stylize(model, CONTENT, STYLE, keep_color=keep) for keep in (True, False))
    assert_same((kept * LUMA).sum(dim=1), (full * LUMA).sum(dim=1))


def test_keep_color_takes_colors_from_the_content(model: StyleTransferModel) -> None:
    """R'G'B' - Y' keeps its direction, and its length where there is room."""
    kept = stylize(model, CONTENT, STYLE, keep_color=True)
    chroma, wanted = (x - (x * LUMA).sum(dim=1, keepdim=True) for x in (kept, CONTENT))
    ratio = (chroma * wanted).sum(dim=1, keepdim=True) / wanted.square().sum(dim=1, keepdim=True)
    torch.testing.assert_close(chroma, ratio * wanted, rtol=0, atol=1e-5)
    assert ratio.min() > 0 and ratio.max() < 1 + 1e-4
    assert (ratio > 1 - 1e-4).float().mean() > 0.5


def test_keep_color_of_a_grey_content_is_grey(model: StyleTransferModel) -> None:
    grey = CONTENT.mean(dim=1, keepdim=True).expand(1, 3, 37, 50)
    kept = stylize(model, grey, STYLE, keep_color=True)
    assert_same(kept[:, 0], kept[:, 1])
    assert_same(kept[:, 1], kept[:, 2])


# ---------------------------------------------------------------- sampling


def test_sampling_is_repeatable_and_touches_no_global_generator(
    model: StyleTransferModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painting_module, "SAMPLED_POSITIONS", 20)
    state = torch.random.get_rng_state()
    first, again, other = (stylize(model, CONTENT, STYLE, attention="sampled", seed=seed) for seed in (7, 7, 8))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert difference(first, other) > 0.2
    torch.manual_seed(5)
    assert torch.equal(stylize(model, CONTENT, STYLE, attention="sampled", seed=7), first)
    torch.random.set_rng_state(state)


def test_sampling_all_positions_is_exact(model: StyleTransferModel) -> None:
    """64 x 64 positions are sampled on relu3_1; a style of 45 x 34 pixels has fewer."""
    assert torch.equal(stylize(model, CONTENT, STYLE, attention="sampled"), stylize(model, CONTENT, STYLE))


# ---------------------------------------------------------------- batches


@pytest.mark.parametrize("chunk_pixels", [1, 2 * 37 * 50, 2**21])
def test_batches_pair_up_whatever_runs_together(
    model: StyleTransferModel, chunk_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaattn_core.inference.batching.BATCH_PIXELS", chunk_pixels)
    content, style, mask = picture(37, 50, batch=3), picture(45, 34, batch=3, seed=1), left_half(45, 34)
    paired = stylize(model, content, style, style_masks=[mask])
    shared = stylize(model, content, [style[:1], style[1:2]])
    mixed = stylize(model, content, [style, STYLE])
    assert paired.shape == content.shape
    for index in range(3):
        item = slice(index, index + 1)
        assert_same(paired[item], stylize(model, content[item], style[item], style_masks=[mask]))
        assert_same(shared[item], stylize(model, content[item], [style[:1], style[1:2]]))
        assert_same(mixed[item], stylize(model, content[item], [style[item], STYLE]))


@pytest.mark.parametrize("strength", [1.0, 0.0])
def test_finished_results_are_handed_over_batch_by_batch(
    model: StyleTransferModel, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaattn_core.inference.batching.BATCH_PIXELS", 2 * 37 * 50)
    content, calls = picture(37, 50, batch=3), list[tuple[str, float]]()
    wanted, results = stylize(model, content, STYLE, strength=strength), torch.zeros(3, 3, 37, 50)

    def on_result(items: slice, pictures: Tensor) -> None:
        calls.append(("result", items.stop))
        results[items] = pictures
        pictures.zero_()  # they are the callback's own

    returned = stylize(
        model, content, STYLE, strength=strength, on_result=on_result,
        progress=lambda share: calls.append(("progress", share)),
    )  # fmt: skip
    assert returned.shape == (0, 3, 37, 50)
    assert torch.equal(results, wanted)
    assert torch.equal(content, picture(37, 50, batch=3))
    assert [call for call in calls if call[0] == "result"] == [("result", 2), ("result", 3)]
    name, share = calls[calls.index(("result", 2)) + 1]
    assert name == "progress" and share == pytest.approx(2 / 3), "the progress of a batch comes after its result"
    assert calls[-2:] == [("result", 3), ("progress", 1)]


# ---------------------------------------------------------------- refinement


@pytest.fixture
def small_vgg(monkeypatch: pytest.MonkeyPatch) -> VGGEncoder:
    """VGG-19's shape with a few channels, in the place of the built-in one."""
    network = small_model(5).encoder

    def load(*, normalized: bool) -> VGGEncoder:
        assert normalized
        return network

    monkeypatch.setattr(stylize_module, "load_vgg", load)
    return network


def test_refine_steps_refine_the_result_with_the_same_options(
    model: StyleTransferModel, small_vgg: VGGEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever runs together: contents, masks and styles of a batch stay paired."""
    content, styles = picture(37, 50, batch=2, seed=3), [picture(45, 34, batch=2, seed=1), OTHER]
    mask, style_mask = torch.rand(2, 1, 37, 50, generator=torch.manual_seed(1)).round(), torch.ones(45, 34)
    options: dict[str, Any] = {
        "style_weights": [3, 1], "strength": 0.8, "temperature": 2.0, "content_mask": mask,
        "style_masks": [style_mask, None], "keep_color": True,
    }  # fmt: skip
    first = stylize(model, content, styles, **options)
    expected = refine(first, content, styles, steps=3, vgg=small_vgg, **options)
    assert difference(expected, first) > 0.5
    assert_same(stylize(model, content, styles, refine_steps=3, **options), expected)
    monkeypatch.setattr(sys.modules["adaattn_core.inference.batching"], "BATCH_PIXELS", 1)
    finished = torch.zeros_like(content)
    stylize(model, content, styles, refine_steps=3, on_result=finished.__setitem__, **options)
    assert_same(finished, expected)


def test_refinement_has_most_of_the_progress(model: StyleTransferModel, small_vgg: VGGEncoder) -> None:
    shares: list[float] = []
    stylize(model, picture(32, 32, batch=2), STYLE, refine_steps=4, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1
    assert sum(share > 0.05 for share in shares) > 8 * len(small_vgg.layers)
    assert max(after - before for before, after in zip(shares, shares[1:], strict=False)) < 0.3


# ---------------------------------------------------------------- errors


def nan_picture() -> Tensor:
    content = picture(16, 16)
    content[0, 0, 0, 0] = math.nan
    return content


ERRORS: dict[str, tuple[Callable[[StyleTransferModel], object], str]] = {
    "content shape": (
        lambda m: stylize(m, torch.zeros(3, 16, 16), STYLE),
        r"the content has shape \(3, 16, 16\); \(batch, 3, height, width\) is needed",
    ),
    "content size": (
        lambda m: stylize(m, torch.zeros(1, 3, 9, 12), STYLE),
        "the content is 12x9 pixels; at least 16x16 are needed. Resize the picture first.",
    ),
    "content type": (
        lambda m: stylize(m, torch.zeros(1, 3, 16, 16, dtype=torch.uint8), STYLE),
        r"the content has dtype torch.uint8; floating point in \[0, 1\] is needed. Divide by 255 first.",
    ),
    "content values": (
        lambda m: stylize(m, nan_picture(), STYLE),
        r"the content holds NaN or infinite values; numbers in \[0, 1\] are needed",
    ),
    "style shape": (
        lambda m: stylize(m, CONTENT, torch.zeros(1, 4, 16, 16)),
        r"the style has shape \(1, 4, 16, 16\); \(batch, 3, height, width\) is needed",
    ),
    "style size": (
        lambda m: encode_style(m, torch.zeros(1, 3, 99, 15)),
        "the style is 15x99 pixels; at least 16x16 are needed. Resize the picture first.",
    ),
    "style values": (
        lambda m: encode_style(m, nan_picture()),
        r"the style holds NaN or infinite values; numbers in \[0, 1\] are needed",
    ),
    "style batch": (
        lambda m: stylize(m, picture(16, 16, batch=3), picture(16, 16, batch=2)),
        "the style has 2 pictures and the content 3; give 1 style, or 3",
    ),
    "no style": (lambda m: stylize(m, CONTENT, []), "no style came; at least one is needed"),
    "count of weights": (
        lambda m: stylize(m, CONTENT, [STYLE, OTHER], style_weights=[1]),
        "1 style weights came for 2 styles; give one for each",
    ),
    "negative weight": (
        lambda m: stylize(m, CONTENT, [STYLE, OTHER], style_weights=[2, -1]),
        r"style weights are \[2.0, -1.0\]; they must not be negative, and one must be above 0",
    ),
    "weights of 0": (
        lambda m: stylize(m, CONTENT, STYLE, style_weights=[0]),
        r"style weights are \[0.0\]; they must not be negative, and one must be above 0",
    ),
    "infinite weight": (
        lambda m: stylize(m, CONTENT, STYLE, style_weights=[math.inf]),
        r"style weights are \[inf\]; they must not be negative, and one must be above 0",
    ),
    "NaN weight": (
        lambda m: stylize(m, CONTENT, [STYLE, OTHER], style_weights=[1, math.nan]),
        r"style weights are \[1.0, nan\]; they must not be negative, and one must be above 0",
    ),
    "strength above 1": (
        lambda m: stylize(m, CONTENT, STYLE, strength=1.5),
        "strength is 1.5; it must be between 0 and 1",
    ),
    "strength below 0": (
        lambda m: stylize(m, CONTENT, STYLE, strength=-0.1),
        "strength is -0.1; it must be between 0 and 1",
    ),
    "strength NaN": (
        lambda m: stylize(m, CONTENT, STYLE, strength=math.nan),
        "strength is nan; it must be between 0 and 1",
    ),
    "temperature": (
        lambda m: stylize(m, CONTENT, STYLE, temperature=0),
        r"temperature is 0; it must be above 0 \(1 is neutral\)",
    ),
    "memory": (
        lambda m: stylize(m, CONTENT, STYLE, max_memory_gb=0),
        "max_memory_gb is 0; it must be above 0",
    ),
    "attention": (
        lambda m: stylize(m, CONTENT, STYLE, attention="flash"),  # type: ignore[arg-type]
        "attention is 'flash'; known are exact, sampled",
    ),
    "count of style masks": (
        lambda m: stylize(m, CONTENT, STYLE, style_masks=[None, None]),
        r"2 style masks came for 1 styles; give one \(or None\) for each",
    ),
    "mask of an encoded style": (
        lambda m: stylize(m, CONTENT, encode_style(m, STYLE), style_masks=[torch.ones(45, 34)]),
        "a style mask came with an already encoded style; give the mask to encode_style instead",
    ),
    "shape of the content mask": (
        lambda m: stylize(m, CONTENT, STYLE, content_mask=torch.ones(1, 3, 37, 50)),
        r"the content mask has shape \(1, 3, 37, 50\); \(1 or 1, 1, height, width\) is needed",
    ),
    "count of content masks": (
        lambda m: stylize(m, picture(16, 16, batch=3), STYLE, content_mask=torch.ones(2, 1, 16, 16)),
        r"the content mask has shape \(2, 1, 16, 16\); \(3 or 1, 1, height, width\) is needed",
    ),
    "aspect of the content mask": (
        lambda m: stylize(m, CONTENT, STYLE, content_mask=torch.ones(50, 37)),
        "the content mask is 37x50 pixels, the content 50x37: another aspect ratio. "
        "Crop or draw the mask to fit the content.",
    ),
    "aspect of the style mask": (
        lambda m: encode_style(m, STYLE, mask=torch.ones(37, 50)),
        "the style mask is 50x37 pixels, the style 34x45: another aspect ratio. "
        "Crop or draw the mask to fit the style.",
    ),
    "empty style mask": (
        lambda m: encode_style(m, STYLE, mask=torch.full((45, 34), 0.4)),
        "the style mask is empty: no part of the style is left to look at. Paint some of it white.",
    ),
    "refinement of an encoded style": (
        lambda m: stylize(m, CONTENT, [STYLE, encode_style(m, STYLE)], refine_steps=5),
        "refine_steps needs the style as a picture, and an already encoded style came; give the picture itself instead "
        "of the result of encode_style",
    ),
    "refine steps": (
        lambda m: stylize(m, CONTENT, STYLE, refine_steps=-1),
        "refine steps are -1; a whole number from 0 to 10000 is needed; 60 to 100 are usual",
    ),
    "one empty style mask": (
        lambda m: encode_style(
            m, torch.cat([STYLE, STYLE]), mask=torch.stack([torch.zeros(45, 34), torch.ones(45, 34)])
        ),
        "the style mask is empty: no part of the style is left to look at. Paint some of it white.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came_and_what_is_needed(model: StyleTransferModel, name: str) -> None:
    call, text = ERRORS[name]
    with pytest.raises(ValueError) as caught:
        call(model)
    assert re.fullmatch(text, str(caught.value)), str(caught.value)
