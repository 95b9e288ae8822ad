"""Paintings mixed: as styles are mixed, and by masks."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adaattn_core import ModelConfig, stylize
from adaattn_core.inference.chunked import TransferOptions
from adaattn_core.inference.mixing import mix_paintings
from adaattn_core.inference.stages import (
    ModelFingerprint,
    StylizedFeatures,
    decode,
    encode,
    encode_style_features,
    transfer,
)
from adaattn_core.models.model import StyleTransferModel
from tests.helpers.comparison import assert_same
from tests.helpers.small_models import SMALL, SMALL_VIDEO, picture, small_model

BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_VIDEO], ids=["image", "video"])
MODEL = small_model()
CONTENT = picture(64, 96)
STYLES = [picture(45, 34, seed=1), picture(32, 48, seed=2), picture(40, 40, seed=3)]
LEFT = (torch.arange(96) < 48).float().expand(1, 1, 64, 96)


def transferred(model: StyleTransferModel, content: Tensor, style: Tensor, strength: float) -> StylizedFeatures:
    encoded = encode_style_features(model.fusion, encode(model.encoder, style))
    features = encode(model.encoder, content)
    return transfer(model.fusion, features, content, [encoded], TransferOptions(strength=strength))


def painting(
    index: int = 0, mask: Tensor | None = None, strength: float = 1.0, content: Tensor = CONTENT
) -> StylizedFeatures:
    return transferred(MODEL, content, STYLES[index], strength)._replace(mask=mask)


def pixels(mixed: StylizedFeatures) -> Tensor:
    return decode(MODEL.decoder, mixed)


@BOTH
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_mixing_paintings_is_mixing_styles(config: ModelConfig, strength: float) -> None:
    """Merging is linear and the weights sum to 1, so the average of paintings is the painting of average statistics."""
    model, weights = small_model(config=config), [1.0, 2.0, 0.5]
    paintings = [transferred(model, CONTENT, style, strength) for style in STYLES]
    result = decode(model.decoder, mix_paintings(paintings, weights))
    assert_same(result, stylize(model, CONTENT, STYLES, style_weights=weights, strength=strength))
    chained = mix_paintings([mix_paintings(paintings[:2], weights[:2]), paintings[2]], [3.0, 0.5])
    assert_same(decode(model.decoder, chained), result)


def test_one_painting_alone_is_itself() -> None:
    alone = painting(mask=LEFT, strength=0.5)
    assert_same(pixels(mix_paintings([alone])), pixels(alone))
    assert_same(pixels(mix_paintings([alone, painting(1)], [2, 0])), pixels(alone))
    assert torch.equal(pixels(mix_paintings([alone]))[..., 48:], CONTENT[..., 48:])


@pytest.mark.parametrize("where", ["masks of the mix", "masks of the paintings", "both"])
def test_each_region_in_its_own_style(where: str) -> None:
    inner, outer = {"masks of the mix": (0, 1), "masks of the paintings": (1, 0), "both": (1, 1)}[where]
    areas = [LEFT, 1 - LEFT]
    mixed = mix_paintings(
        [painting(index, areas[index] if inner else None) for index in (0, 1)],
        [1, 5],  # in a region with one style, its weight does not matter
        areas if outer else None,
    )
    result, alone = pixels(mixed), [pixels(painting(index)) for index in (0, 1)]
    reach = 32  # the decoder sees this far over the border
    assert_same(result[..., : 48 - reach], alone[0][..., : 48 - reach])
    assert_same(result[..., 48 + reach :], alone[1][..., 48 + reach :])
    assert mixed.mask is not None and bool((mixed.mask == 1).all())


def test_where_no_mask_is_white_the_content_stays() -> None:
    third = (torch.arange(96) < 32).float().expand(1, 1, 64, 96)
    mixed = mix_paintings([painting(0), painting(1)], masks=[LEFT, third])
    result = pixels(mixed)
    assert torch.equal(result[..., 48:], CONTENT[..., 48:])
    assert float((result[..., :48] - CONTENT[..., :48]).abs().mean()) > 10 / 255


def test_regions_that_meet_softly_leave_no_content_between() -> None:
    slope = torch.linspace(2, -1, 96).clamp(0, 1).expand(1, 1, 64, 96)
    mixed = mix_paintings([painting(0, slope), painting(1, 1 - slope)])
    assert mixed.mask is not None
    torch.testing.assert_close(mixed.mask, torch.ones(1, 1, 64, 96))


def test_two_styles_under_one_mask_stay_under_it() -> None:
    """As `stylize` does it with one mask for the mix, soft border included."""
    slope = torch.linspace(2, -1, 96).clamp(0, 1).expand(1, 1, 64, 96)
    mixed = mix_paintings([painting(0, slope), painting(1, slope.clone())], [3, 1])
    assert mixed.mask is not None and torch.equal(mixed.mask, slope)
    wanted = stylize(MODEL, CONTENT, STYLES[:2], style_weights=[3, 1], content_mask=slope)
    assert_same(pixels(mixed), wanted)


def test_strengths_mix_in_the_same_shares() -> None:
    """Nothing of one style and all of another: 1 to 3 in their shares, as one style at strength 3/4."""
    mixed = mix_paintings([painting(0, strength=0.0), painting(1)], [1, 3])
    assert mixed.strength.shape == (1, 1, 1, 1) and float(mixed.strength) == pytest.approx(0.75)
    assert_same(pixels(mixed), pixels(painting(1, strength=0.75)))


def test_each_region_in_its_own_strength() -> None:
    mixed = mix_paintings([painting(0, strength=0.0), painting(1)], masks=[LEFT, 1 - LEFT])
    assert_same(pixels(mixed)[..., :16], CONTENT[..., :16])
    assert_same(pixels(mixed)[..., 80:], pixels(painting(1))[..., 80:])


def test_equal_contents_need_not_be_one_tensor() -> None:
    apart = [painting(0), painting(1, content=CONTENT.clone())]
    assert_same(pixels(mix_paintings(apart)), pixels(mix_paintings([painting(0), painting(1)])))


ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "content": (
        lambda: mix_paintings([painting(), painting(content=1 - CONTENT)]),
        "painting 2 has another content than painting 1; paintings to mix need one content. "
        "Use the same content features for all of them.",
    ),
    "size": (
        lambda: mix_paintings([painting(), painting(), painting(content=CONTENT[..., :64])]),
        "painting 3 has another content than painting 1; paintings to mix need one content. "
        "Use the same content features for all of them.",
    ),
    "model": (
        lambda: mix_paintings([painting(), painting()._replace(attention=ModelFingerprint("01", "yours"))]),
        "painting 2 was made by another model than painting 1 (yours (01) and  ()); "
        "paintings to mix need one model. Use the same attention for all of them.",
    ),
    "weights": (
        lambda: mix_paintings([painting(), painting()], [0, 0]),
        "style weights are [0.0, 0.0]; they must not be negative, and one must be above 0",
    ),
    "masks": (
        lambda: mix_paintings([painting(), painting()], masks=[LEFT]),
        "1 mask came for 2 paintings; give one (or None) for each",
    ),
    "none": (lambda: mix_paintings([]), "no style came; at least one is needed"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came_and_what_is_needed(name: str) -> None:
    call, text = ERRORS[name]
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()
