"""A comparison sheet: where contents, styles, results and gaps are."""

from __future__ import annotations

import torch

from adaattn_core.commands.compare import center_square, comparison_sheet
from adaattn_core.inference.stylize import stylize
from tests.helpers.small_models import picture, small_model


def test_a_sheet_has_contents_left_styles_on_top_and_white_between() -> None:
    model = small_model()
    contents, styles = [picture(16, 20, seed=1), picture(16, 20, seed=2)], [picture(16, 20, seed=3)]
    sheet = comparison_sheet(model, contents, styles)
    assert sheet.shape == (1, 3, 3 * 16 + 2 * 4, 2 * 20 + 4)
    assert bool((sheet[..., :20, :20] == 1).all()), "corner"
    assert bool((sheet[..., 16:20, :] == 1).all()), "gap"
    assert torch.equal(sheet[..., 40:, :20], contents[1])
    assert torch.equal(sheet[..., :16, 24:], styles[0])
    assert torch.allclose(sheet[..., 40:, 24:], stylize(model, contents[1], styles[0]), atol=1e-5)


def test_a_square_is_the_middle_of_a_picture() -> None:
    image = picture(32, 48)
    assert torch.equal(center_square(image, 32), image[..., 8:40])
