"""Colours under opacity: what is painted, what is kept, and resizing without fringes; values worked out by hand."""

from __future__ import annotations

import torch

from adaattn_core.ops.opacity import fill_clear, over_white, resize_with_alpha, restore_hidden, visible_color

RED = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
ALPHA = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
COLOR = RED.expand(1, 3, 1, 3)


def test_over_white() -> None:
    assert over_white(COLOR, ALPHA)[0, 1].tolist() == [[1.0, 0.5, 0.0]]
    assert over_white(COLOR, None) is COLOR


def test_a_clear_pixel_is_painted_as_white_and_all_others_in_their_own_colour() -> None:
    assert visible_color(COLOR, ALPHA)[0, 1].tolist() == [[1.0, 0.0, 0.0]]
    assert visible_color(COLOR, None) is COLOR


def test_hidden_colours_come_back_as_far_as_nothing_is_painted() -> None:
    painted = torch.full((1, 3, 1, 3), 0.5)
    assert restore_hidden(painted, COLOR, ALPHA, 0.0)[0, 1].tolist() == [[0.0, 0.5, 0.5]]
    assert restore_hidden(painted, COLOR, ALPHA, 0.5)[0, 1].tolist() == [[0.25, 0.5, 0.5]]
    assert restore_hidden(painted, COLOR, ALPHA, 1.0).equal(painted)
    mask = torch.tensor([0.0, 1.0, 1.0]).view(1, 1, 1, 3)
    assert restore_hidden(painted, COLOR, ALPHA, mask)[0, 0].tolist() == [[1.0, 0.5, 0.5]]
    assert restore_hidden(painted, COLOR, None, 0.0) is painted


def test_a_clear_part_of_a_style_takes_the_mean_of_the_visible_part() -> None:
    color = torch.tensor([0.2, 0.6, 0.9]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    alpha = torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 3)
    torch.testing.assert_close(fill_clear(color, alpha)[0, 0, 0], torch.tensor([0.2, 0.6, 0.4]))
    assert fill_clear(color, None) is color


def test_resizing_keeps_the_colours_of_visible_pixels() -> None:
    """Half of the picture is clear, with black under it: no black comes into the red of the other half."""
    color = torch.zeros(1, 3, 64, 64)
    color[:, 0, :, 32:] = 1
    alpha = torch.zeros(1, 1, 64, 64)
    alpha[..., 32:] = 1
    small, opacity = resize_with_alpha(color, alpha, 16)
    assert opacity is not None and small.shape == (1, 3, 16, 16) and opacity.shape == (1, 1, 16, 16)
    visible = opacity[0, 0] > 0.01
    assert visible.any() and not visible.all()
    torch.testing.assert_close(small[0, 0][visible], torch.ones(int(visible.sum())), atol=1e-4, rtol=0)
    assert resize_with_alpha(color, alpha, 64)[1] is alpha
    assert resize_with_alpha(color, None, 16)[1] is None
