"""Muon: steps with balanced directions. Solved by hand where a reader can follow, else by properties."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Conv2d

from adaattn_core.training.muon import STEP_RMS, Muon, orthogonalized


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (40, 16)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_all_directions_come_out_about_as_long(shape: tuple[int, int], scale: float) -> None:
    values = torch.linalg.svdvals(orthogonalized(scale * matrix(*shape)))
    # Jordan's polynomial takes singular values to between 0.68 and 1.13 (his figure); bfloat16 adds a little. The
    # smallest directions of a square random matrix need more rounds than five, so the median speaks for them.
    assert float(values.max()) < 1.25
    assert float(values.median()) > 0.65


def test_an_orthogonal_matrix_keeps_its_directions() -> None:
    wanted = torch.linalg.qr(matrix(12, 12))[0]
    found = orthogonalized(3 * wanted)
    cosine = (found * wanted).sum() / (found.norm() * wanted.norm())
    assert float(cosine) > 0.999


def test_a_zero_gradient_moves_nothing() -> None:
    assert not orthogonalized(torch.zeros(8, 8)).any()


def test_a_step_of_a_convolution_is_as_large_as_adams() -> None:
    conv = Conv2d(32, 32, 3, bias=False)
    before = conv.weight.detach().clone()
    conv.weight.grad = torch.randn(conv.weight.shape, generator=torch.Generator().manual_seed(1))
    Muon([conv.weight], lr=1e-2).step()
    size = float((conv.weight.detach() - before).square().mean().sqrt())
    assert size == pytest.approx(STEP_RMS * 1e-2, rel=0.2)  # singular values are 0.7 to 1.2 and not 1


def test_a_bias_first_steps_by_a_fifth_of_the_learning_rate_whatever_its_gradient() -> None:
    bias = nn.Parameter(torch.zeros(3))
    bias.grad = torch.tensor([0.5, -2.0, 1e-3])
    Muon([bias], lr=0.1).step()
    assert bias.detach() == pytest.approx(torch.tensor([-0.02, 0.02, -0.02]), rel=1e-4)


def test_weight_decay_shrinks_what_the_gradient_leaves() -> None:
    bias = nn.Parameter(torch.full((3,), 2.0))
    bias.grad = torch.zeros(3)
    Muon([bias], lr=0.1, weight_decay=0.5).step()
    assert bias.detach() == pytest.approx(torch.full((3,), 2.0 * (1 - 0.1 * 0.5)))


def test_a_weak_direction_learns_as_fast_as_a_strong_one() -> None:
    weight = nn.Parameter(torch.zeros(8, 8))
    strengths = torch.logspace(0, -3, 8)
    weight.grad = torch.diag(strengths)
    Muon([weight], lr=0.1).step()
    moved = weight.detach().diagonal().abs()
    assert float(moved[0] / moved[3]) < 2, f"gradients {strengths[0]:.3f} and {strengths[3]:.3f} moved {moved}"
