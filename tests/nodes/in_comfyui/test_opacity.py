"""IMAGE with a fourth channel: a content keeps its opacity and what is hidden, a clear part of a style is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.node_images import CONTENT, LEFT, OTHER, STYLE, image

Run = Callable[..., Any]
ALPHA = torch.linspace(0, 1, 72).expand(1, 48, 72)
RGBA = torch.cat([image(CONTENT), ALPHA[..., None]], dim=-1)
STYLES = image(STYLE)


def stylized(run: Run, content: Tensor = RGBA, style: Tensor = STYLES, **options: Any) -> Tensor:
    result: Tensor = run("Stylize", model_name="built-in", content=content, style=style, **{"strength": 1.0, **options})
    return result


def in_steps(run: Run, parts: tuple[Any, Any, Any], content: Tensor, style: Tensor, **options: Any) -> Tensor:
    encoder, attention, decoder = parts
    features = [run("ExtractFeatures", encoder=encoder, image=one) for one in (content, style)]
    fused, _ = run("Apply", attention=attention, content=features[0], style=features[1], **{"strength": 1.0, **options})
    result: Tensor = run("Decode", decoder=decoder, fused=fused)
    return result


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"content_mask": LEFT}, {"refine_steps": 1}, {}])
def test_a_content_keeps_its_opacity(run: Run, options: dict[str, Any]) -> None:
    result = stylized(run, **options)
    assert result.shape == (1, 48, 72, 4)
    assert torch.equal(result[..., 3], ALPHA)
    unpainted = {"strength": slice(0, 72), "content_mask": slice(36, 72)}.get(next(iter(options), ""), slice(0, 0))
    torch.testing.assert_close(result[:, :, unpainted], RGBA[:, :, unpainted])


def test_the_single_nodes_keep_it_too(run: Run, parts: tuple[Any, Any, Any]) -> None:
    result = in_steps(run, parts, RGBA, image(STYLE))
    torch.testing.assert_close(result, stylized(run, style_size=0), rtol=0, atol=1e-4)
    torch.testing.assert_close(in_steps(run, parts, RGBA, image(STYLE), strength=0.0), RGBA)
    masked = in_steps(run, parts, RGBA, image(STYLE), content_mask=LEFT)
    torch.testing.assert_close(masked[:, :, 36:], RGBA[:, :, 36:])


def test_refine_keeps_it(run: Run) -> None:
    for picture, content in ((RGBA, image(CONTENT)), (image(OTHER_SIZE), RGBA)):
        result = run("Refine", image=picture, content=content, style=image(STYLE), steps=1)
        assert torch.equal(result[..., 3], ALPHA)


OTHER_SIZE = torch.nn.functional.interpolate(OTHER, (48, 72))


def test_an_opaque_content_has_three_channels(run: Run) -> None:
    opaque = torch.cat([image(CONTENT), torch.ones(1, 48, 72, 1)], dim=-1)
    assert torch.equal(stylized(run, opaque), stylized(run, image(CONTENT)))


def test_the_clear_part_of_a_style_is_no_style(run: Run, parts: tuple[Any, Any, Any]) -> None:
    """Whatever colour is hidden there."""
    alpha = torch.ones(1, 45, 34, 1)
    alpha[:, :, 17:] = 0
    styles = []
    for hidden in (0.0, 1.0):
        colors = image(STYLE).clone()
        colors[:, :, 17:] = hidden
        styles.append(torch.cat([colors, alpha], dim=-1))
    first, second = (stylized(run, image(CONTENT), style) for style in styles)
    torch.testing.assert_close(first, second)
    first, second = (in_steps(run, parts, image(CONTENT), style) for style in styles)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("scale", [255.0, -1.0])
def test_values_that_are_no_picture_are_refused(run: Run, parts: tuple[Any, Any, Any], scale: float) -> None:
    wrong = image(CONTENT) * scale if scale > 0 else image(CONTENT) * 2 - 1
    calls: list[Callable[[], object]] = [
        lambda: stylized(run, wrong),
        lambda: stylized(run, image(CONTENT), wrong),
        lambda: run("ExtractFeatures", encoder=parts[0], image=wrong),
        lambda: run("Refine", image=wrong, content=image(CONTENT), style=image(STYLE), steps=1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r" holds values from \S+ to \S+; \[0, 1\] is needed\. Scale or clip"):
            call()
