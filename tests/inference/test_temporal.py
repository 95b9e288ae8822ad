"""Temporal smoothing reduces flicker, follows motion and stops at cuts; optical flow and warping by hand."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from adaattn_core import encode_style, stylize
from adaattn_core.inference.temporal import (
    SIGMA,
    ClipOptions,
    ClipStylizer,
    TemporalSmoother,
    match_sharpness,
    occlusion_weight,
    optical_flow,
    warp,
)
from adaattn_core.runtime.remarks import collected_remarks
from tests.helpers.small_models import picture, small_model
from tests.helpers.tiny_clips import frames, with_noise

pytest.importorskip("cv2", reason='needs OpenCV: pip install "adaattn[video]"')


def change(images: list[Tensor]) -> float:
    """Mean difference between consecutive frames, without the first four, in which the smoother settles."""
    pairs = list(zip(images[4:], images[3:-1], strict=True))
    return sum(float((new - old).abs().mean()) for new, old in pairs) / len(pairs)


def test_flicker_of_a_still_clip_is_reduced() -> None:
    """Noise that is new in every frame changes by sqrt 2 of its spread from frame to frame.

    A blend with the weight s of the previous result changes by (1 - s) sqrt(2 / (1 + s)) of it: a fourth at 0.7. Fine
    detail is then amplified to the noise of the frame, by at most 1 / s.
    """
    contents = [picture(48, 64)] * 12
    painted = with_noise(contents)
    smoother = TemporalSmoother(0.7)
    results = [smoother(content, one) for content, one in zip(contents, painted, strict=True)]
    assert torch.equal(results[0], painted[0])
    assert change(results) < 0.45 * change(painted)


def test_a_moving_picture_leaves_no_trail() -> None:
    """The stylization moves with the content, so the blend must follow it and leave no trail."""
    contents = frames(64, 96, count=8)
    inverted = [1 - one for one in contents]
    smoother = TemporalSmoother(0.9)
    for content, painted in zip(contents, inverted, strict=True):
        result = smoother(content, painted)
    inner = (..., slice(8, -8), slice(8, -24))
    assert float((result - inverted[-1])[inner].abs().mean()) < 0.01
    assert float((inverted[-1] - inverted[-2])[inner].abs().mean()) > 0.02, "it moves"


def test_flow_points_to_the_previous_position() -> None:
    """The content moves two pixels to the left, so its previous position is two pixels further right."""
    (before, present, *_) = frames(64, 96)
    flow = optical_flow(present, before)[..., 16:-16, 16:-16]
    assert float(flow[:, 0].median()) == pytest.approx(2, abs=0.2)
    assert float(flow[:, 1].median()) == pytest.approx(0, abs=0.2)


def test_flow_of_a_large_picture_is_searched_at_a_smaller_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaattn_core.inference.temporal.FLOW_SIDE", 64)
    (before, present, *_) = frames(128, 192)
    assert float(optical_flow(present, before)[:, 0, 32:-32, 32:-32].median()) == pytest.approx(2, abs=0.4)


@pytest.mark.parametrize("size", [(16, 16), (17, 200), (45, 33)])
def test_any_size_has_a_flow(size: tuple[int, int]) -> None:
    one = picture(*size)
    assert optical_flow(one, one).shape == (1, 2, *size)


def test_warp_samples_where_the_flow_points_and_masks_the_outside() -> None:
    image = torch.arange(4.0).expand(1, 1, 3, 4)
    flow = torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 3, 4)
    moved, inside = warp(image, flow)
    torch.testing.assert_close(moved[0, 0, 0], torch.tensor([1.0, 2.0, 3.0, 3.0]))
    assert inside[0, 0, 0].tolist() == [1, 1, 1, 0]


def test_the_weight_is_small_around_a_difference() -> None:
    difference = torch.zeros(1, 1, 40, 40)
    difference[..., 20, 20] = 100 * SIGMA
    weight = occlusion_weight(difference)
    assert weight[0, 0, 20, 26] < 0.1 < 0.99 < weight[0, 0, 20, 32]


def test_noise_all_over_a_frame_does_not_lower_the_weight() -> None:
    noise = 0.02 * torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    assert occlusion_weight(noise).min() > 0.99
    uncovered = noise.clone()
    uncovered[..., 24:40, 24:40] = 0.2
    weight = occlusion_weight(uncovered)
    assert weight[..., 28:36, 28:36].max() < 0.05 and weight[..., :8].min() > 0.99


def test_a_change_of_the_whole_frame_is_no_noise() -> None:
    assert occlusion_weight(torch.full((1, 1, 32, 32), 0.12)).max() < 0.2


def test_detail_is_amplified_to_the_strength_of_the_reference() -> None:
    model = picture(64, 64)
    faint = 0.5 + (model - 0.5) * 0.5
    raised = match_sharpness(faint, model, largest=4)
    spread = [float((one - one.mean()).abs().mean()) for one in (faint, raised, model)]
    assert spread[0] < spread[1] <= spread[2] * 1.05
    assert torch.allclose(match_sharpness(model, faint, largest=4), model, atol=1e-6), "never lowered"


def test_nothing_is_blended_across_a_cut() -> None:
    smoother = TemporalSmoother(0.9)
    dark, light = picture(48, 64, seed=1) * 0.3, 1 - picture(48, 64, seed=2) * 0.3
    smoother(dark, dark)
    assert torch.equal(smoother(light, light), light)


def test_weight_0_returns_the_stylized_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    smoother = TemporalSmoother(0)
    for content, painted in zip(frames(), with_noise(frames()), strict=True):
        assert smoother(content, painted) is painted


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="steady is 1.5; it must be between 0 and 1"):
        TemporalSmoother(1.5)
    with pytest.raises(
        ValueError, match="content is 1 picture of 16x16 pixels with 3 channels, stylized is 1 picture of 18x16 pixels"
    ):
        TemporalSmoother(0.5)(picture(16, 16), picture(16, 18))


# ---------------------------------------------------------------- whole clips


def clip_stylizer(**options: Any) -> ClipStylizer:
    model = small_model()
    return ClipStylizer(model, [encode_style(model, picture(32, 32, seed=2))], ClipOptions(**options))


def test_a_clip_is_each_frame_stylized_then_smoothed() -> None:
    stylizer, smoother = clip_stylizer(), TemporalSmoother()
    for content in frames():
        painted = stylize(stylizer.model, content, stylizer.styles)
        assert torch.equal(stylizer.smooth(content, stylizer.paint(content)), smoother(content, painted))


def test_strength_0_gives_the_frames_back() -> None:
    stylizer = clip_stylizer(strength=0.0)
    for content in with_noise(frames()):
        assert torch.equal(stylizer.smooth(content, stylizer.paint(content)), content)


def test_outside_a_mask_the_frames_are_exact() -> None:
    mask = (torch.arange(48) < 24).float().expand(1, 1, 32, 48)
    masked, everywhere = clip_stylizer(), clip_stylizer()
    for content in with_noise(frames()):
        result = masked.smooth(content, masked.paint(content), mask)
        assert torch.equal(result[..., 24:], content[..., 24:])
        assert torch.equal(result[..., :24], everywhere.smooth(content, everywhere.paint(content))[..., :24])


def shots(count: int, length: int = 3) -> list[Tensor]:
    """Still shots, alternately dark and light."""
    dark, light = picture(32, 48, seed=1) * 0.3, 1 - picture(32, 48, seed=2) * 0.3
    return [dark if number // length % 2 else light for number in range(count * length)]


@pytest.mark.parametrize(
    ("contents", "lines"),
    [
        (frames(), []),
        (frames()[:1], []),
        (shots(2), ["1 cut found, before frame 4: nothing is blended across a cut"]),
        (shots(3), ["2 cuts found, before frame 4, 7: nothing is blended across a cut"]),
        (
            shots(11, 2),
            ["10 cuts found, before frame 3, 5, 7, 9, 11, 13, 15, 17, ...: nothing is blended across a cut"],
        ),
        (
            shots(5, 1),
            ["all 5 frames differ like shots of their own, so that none is steadied by the one before"],
        ),
        ([*frames()[:2], picture(16, 16)], ["1 cut found, before frame 3: nothing is blended across a cut"]),
    ],
)
def test_cuts_are_found_and_told(contents: list[Tensor], lines: list[str]) -> None:
    stylizer = clip_stylizer()
    with collected_remarks() as notes:
        for content in contents:
            stylizer.smooth(content, 1 - content)
        stylizer.remark_cuts()
    assert [note.text for note in notes] == lines


def test_weights_that_sum_to_zero_are_refused_before_the_first_frame() -> None:
    with pytest.raises(ValueError, match=r"style weights are \[0\.0\]; they must not be negative, and one must be"):
        clip_stylizer(style_weights=[0.0])
