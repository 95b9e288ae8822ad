"""Muon: steps whose matrices are orthogonal, so that every direction of a weight learns at the same pace.

Source: Jordan et al., "Muon", 2024 (kellerjordan.github.io/posts/muon): momentum, then five Newton-Schulz iterations;
Liu et al., arXiv:2502.16982: steps scaled to the size of Adam's, so that learning rates carry over.
Differs from torch.optim.Muon: convolutions too, as (out, in x height x width) matrices; all other tensors, and the
convolutions of three channels, follow Adam.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
ADAM_BETAS = (0.9, 0.95)
EPSILON = 1e-8
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz polynomial; Jordan's, which take singular values to between 0.7 and 1.2 in five rounds."""
ADAM_SIZE = 0.2
"""Root mean square of every step, in learning rates: what Adam's steps come to in practice (arXiv:2502.16982).
Tensors that follow Adam are held to it too, else the last, three-channel convolution would run ahead of the rest."""
LEAST_CHANNELS = 8
"""Matrices with fewer rows or columns have too few directions to balance."""


class Muon(torch.optim.Optimizer):
    """Args as torch.optim.AdamW's; `weight_decay` is decoupled."""

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move each parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                move = self._matrix_step if _is_matrix(parameter) else self._adam_step
                parameter.sub_(group["lr"] * move(parameter.grad, self.state[parameter]))

    def _matrix_step(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        momentum: Tensor = state.setdefault("momentum", torch.zeros_like(gradient))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        matrix = torch.lerp(gradient, momentum, MOMENTUM).flatten(1)
        step = orthogonalized(matrix) * (ADAM_SIZE * max(matrix.shape) ** 0.5)
        moved: Tensor = step.reshape(gradient.shape)
        return moved

    def _adam_step(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        mean: Tensor = state.setdefault("mean", torch.zeros_like(gradient))
        square: Tensor = state.setdefault("square", torch.zeros_like(gradient))
        state["step"] = step = state.get("step", 0) + 1
        mean.lerp_(gradient, 1 - ADAM_BETAS[0])
        square.lerp_(gradient.square(), 1 - ADAM_BETAS[1])
        size = (square / (1 - ADAM_BETAS[1] ** step)).sqrt() + EPSILON
        moved: Tensor = ADAM_SIZE * (mean / (1 - ADAM_BETAS[0] ** step) / size)
        return moved


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and min(len(parameter), parameter[0].numel()) >= LEAST_CHANNELS


def orthogonalized(matrix: Tensor, rounds: int = 5) -> Tensor:
    """About the nearest matrix with orthonormal rows or columns: singular values go to 0.7 .. 1.2, vectors stay.

    Args:
        matrix: (R, C), any scale.

    Returns:
        (R, C), dtype of `matrix`; the products run in bfloat16, which the iteration forgives.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    found: Tensor = (x.T if tall else x).to(matrix.dtype)
    return found
