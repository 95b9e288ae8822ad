"""What the published implementation computed, and how far a tensor of ours is from it. Provenance: golden/README.md.

Use:
    features = encoder(load_oracle()["image.content"])
    check_stage("image.content_relu3_1", features["relu3_1"])
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.golden.seeded_weights import state_dict, write_published_files

__all__ = [
    "check_stage",
    "load_oracle",
    "relative_error",
    "sample_positions",
    "stage_names",
    "state_dict",
    "tolerance",
    "write_published_files",
]

ORACLE = Path(__file__).parents[1] / "golden" / "oracle.safetensors"
STAGE_TOLERANCE = 5e-4
"""An independent float32 run agrees to 1e-5 on features and 1e-4 on pictures; a real difference is above 1e-3."""
LOSS_TOLERANCE = 1e-3
"""Losses are squares: twice the relative error of a stage."""
GRADIENT_TOLERANCE = 5e-3
"""Weights changed by one rounding error (6e-8) move the published gradient norms by up to 2e-3."""
LOGITS_GRADIENT_TOLERANCE = 1e-2
"""For f and g that is 3.4e-3: E[V^2] - M^2 cancels where S is near 0, where the derivative of its root is large."""
EXACT_ZERO_TOLERANCE = 1e-4
"""Gradient of a key bias as a part of that of the key weights: the published code leaves 2e-5 of rounding noise."""


@cache
def _stored() -> dict[str, Tensor]:
    return load_file(ORACLE)


def load_oracle() -> dict[str, Tensor]:
    """All of the oracle, by name; the first part of a name is the model: `image`, `masks` or `video`.

    Returns:
        `<model>.content`, `<model>.style`: (B, 3, H, W) float32 in [0, 1].
        `masks.content_mask`, `masks.style_mask`: (1, 1, H, W) float32, 0 or 1.
        `<model>.output`: (B, 3, H, W) float32, not clamped; every picture is stored whole.
        `image.loss_*`, `image.grad_norm.<file>.<key>`: float32 scalars.
        `<stage>.values`, `<stage>.norm`, `<stage>.shape`: of any other stage, some values (at `sample_positions`),
        the L2 norm of the whole and the shape.
    """
    return {name: x.float() / 255 if x.dtype == torch.uint8 else x.clone() for name, x in _stored().items()}


def stage_names(prefix: str = "") -> list[str]:
    """Names that `relative_error` knows and that start with `prefix`, such as "image.grad_norm."; sorted."""
    inputs = ("content", "style", "content_mask", "style_mask")
    names = {name.removesuffix(".values") for name in _stored() if not name.endswith((".norm", ".shape"))}
    return sorted(name for name in names if name.startswith(prefix) and name.partition(".")[2] not in inputs)


def sample_positions(size: int, count: int) -> Tensor:
    """`count` different flat indices of a tensor of `size` elements, spread over it and over every axis.

    Steps of about the golden section, wrapped; a step without common divisor with `size` has none with the length
    of any axis, so that no row, column or channel is passed over.
    """
    step = round(size * (math.sqrt(5) - 1) / 2)
    while math.gcd(step, size) > 1:
        step += 1
    return torch.arange(count) * step % size


def relative_error(stage: str, tensor: Tensor) -> float:
    """||ours - golden|| / ||golden||, over the stored values; or the relative difference of the norms, if larger.

    Exception: the gradient of a key bias `g.bias` is zero in exact arithmetic, because a softmax does not see what
    is added to all its logits. The golden value is rounding noise; ours is measured against that of `g.weight`.

    Raises:
        AssertionError: the shape is not the golden one.
        KeyError: there is no such stage.
    """
    golden = _golden(stage)
    assert tensor.shape == golden.shape, f"{stage} has shape {tuple(tensor.shape)}, golden {tuple(golden.shape)}"
    norm = float(tensor.detach().double().norm())
    if stage.endswith(".g.bias"):
        return norm / _golden(stage.removesuffix("bias") + "weight").norm
    ours = level_attention(tensor, golden.positions)
    values_error = (ours - golden.values).norm() / golden.values.norm()
    return float(torch.stack([values_error, torch.tensor(abs(norm / golden.norm - 1))]).max())


def tolerance(stage: str) -> float:
    """Largest relative error that parity allows at a stage."""
    if stage.endswith(".g.bias"):
        return EXACT_ZERO_TOLERANCE
    if ".grad_norm." in stage:
        return LOGITS_GRADIENT_TOLERANCE if stage.split(".")[-2] in ("f", "g") else GRADIENT_TOLERANCE
    return LOSS_TOLERANCE if ".loss_" in stage else STAGE_TOLERANCE


def check_stage(stage: str, tensor: Tensor) -> None:
    """Assert that `tensor` is the golden stage, within its tolerance; otherwise say how far off it is, and where."""
    error = relative_error(stage, tensor)
    if error <= tolerance(stage):
        return
    golden = _golden(stage)
    ours = level_attention(tensor, golden.positions)
    worst = int((ours - golden.values).abs().argmax())
    where = [int(index) for index in torch.unravel_index(golden.positions[worst], golden.shape)]
    raise AssertionError(
        f"{stage}: relative error {error:.2g}, allowed {tolerance(stage):g}; "
        f"mean {ours.mean():.4g}, golden {golden.values.mean():.4g}; "
        f"L2 norm {float(tensor.norm()):.6g}, golden {golden.norm:.6g}; "
        f"largest difference at {where}: {ours[worst]:.6g}, golden {golden.values[worst]:.6g}"
    )


class _Golden(NamedTuple):
    """One stage. values: (N,) float64, found at the flat `positions` (N,); norm: L2 of the whole."""

    values: Tensor
    positions: Tensor
    norm: float
    shape: torch.Size


def _golden(stage: str) -> _Golden:
    oracle = _stored()
    if f"{stage}.values" in oracle:
        values, shape = oracle[f"{stage}.values"], torch.Size(oracle[f"{stage}.shape"].tolist())
        positions = sample_positions(shape.numel(), values.numel())
        return _Golden(values.double(), positions, float(oracle[f"{stage}.norm"]), shape)
    whole = oracle[stage].double()
    return _Golden(whole.flatten(), torch.arange(whole.numel()), float(whole.norm()), whole.shape)


def level_attention(tensor: Tensor, positions: Tensor) -> Tensor:
    return tensor.detach().cpu().double().flatten()[positions]
