"""What a user does, on small random models: every option against what it must not change and what it must."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adaattn_core import ModelConfig, StyleTransferModel, encode_style, load_image, load_model, stylize
from tests.helpers.comparison import assert_same, difference
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model
from tests.helpers.stylize_pictures import CONTENT, OTHER, STYLE

painting_module = sys.modules["adaattn_core.inference.stages"]
BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_VIDEO], ids=["image", "video"])
EXAMPLES = Path(__file__).parents[2] / "examples"


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


def test_values_a_little_outside_the_range_are_clamped_first(
    model: StyleTransferModel, caplog: pytest.LogCaptureFixture
) -> None:
    """Bicubic resizing makes such values. Those that are farther out are an error, see test_stylize_errors.py."""
    loud = 1.4 * CONTENT - 0.2
    assert torch.equal(stylize(model, loud, STYLE), stylize(model, loud.clamp(0, 1), STYLE))
    assert torch.equal(stylize(model, loud, STYLE, strength=0), loud.clamp(0, 1))
    assert [record.message for record in caplog.records] == [
        f"the content: values from {loud.min():.3g} to {loud.max():.3g} are clamped to [0, 1]"
    ]


def test_memory_layout_does_not_matter(model: StyleTransferModel) -> None:
    turned = CONTENT.mT.contiguous().mT.to(memory_format=torch.channels_last)
    assert_same(stylize(model, turned, STYLE), stylize(model, CONTENT, STYLE))


@pytest.mark.parametrize("name", ["compact", "base"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("content", "style"), [("rocket", "great_wave"), ("astronaut", "composition_viii")])
def test_half_precision_is_close_on_real_pictures(name: str, dtype: torch.dtype, content: str, style: str) -> None:
    """Under 2/255 everywhere and 0.5/255 on average, with the built-in models; a night sky strays furthest."""
    pictures = [
        F.interpolate(load_image(EXAMPLES / f"{picture}.jpg"), size=(192, 192), mode="bilinear", antialias=True)
        for picture in (content, style)
    ]
    exact, half = (stylize(load_model(name, dtype=dtype), *pictures) for dtype in (torch.float32, dtype))
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
