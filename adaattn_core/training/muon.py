"""The Muon optimiser: its steps are orthogonal matrices, so that all directions of a weight learn equally fast.

Source: Jordan et al., "Muon", 2024 (kellerjordan.github.io/posts/muon): momentum and five Newton-Schulz iterations;
Liu et al., arXiv:2502.16982: steps scaled to the size of Adam's, so that learning rates carry over.
Differs from torch.optim.Muon: convolutions are treated as (out, in x height x width) matrices; all other tensors, and
convolutions with three channels, are updated by Adam.
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
"""Jordan's coefficients of the Newton-Schulz polynomial: five iterations take singular values to 0.7 to 1.2."""
STEP_RMS = 0.2
"""Root mean square of every step, in learning rates: the usual size of Adam's steps (arXiv:2502.16982). Tensors updated
by Adam are scaled to it too; otherwise the last convolution, of three channels, would change faster than the others."""
MIN_SIDE = 8
"""Matrices with fewer rows or columns are updated by Adam."""


class Muon(torch.optim.Optimizer):
    """The arguments are those of torch.optim.AdamW; `weight_decay` is decoupled."""

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update each parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                step = self._matrix_step if _is_matrix(parameter) else self._adam_step
                parameter.sub_(group["lr"] * step(parameter.grad, self.state[parameter]))

    def _matrix_step(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        momentum: Tensor = state.setdefault("momentum", torch.zeros_like(gradient))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        matrix = torch.lerp(gradient, momentum, MOMENTUM).flatten(1)
        step = orthogonalized(matrix) * (STEP_RMS * max(matrix.shape) ** 0.5)
        reshaped: Tensor = step.reshape(gradient.shape)
        return reshaped

    def _adam_step(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        mean: Tensor = state.setdefault("mean", torch.zeros_like(gradient))
        square: Tensor = state.setdefault("square", torch.zeros_like(gradient))
        state["step"] = count = state.get("step", 0) + 1
        mean.lerp_(gradient, 1 - ADAM_BETAS[0])
        square.lerp_(gradient.square(), 1 - ADAM_BETAS[1])
        size = (square / (1 - ADAM_BETAS[1] ** count)).sqrt() + EPSILON
        step: Tensor = STEP_RMS * (mean / (1 - ADAM_BETAS[0] ** count) / size)
        return step


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.ndim > 1 and min(len(parameter), parameter[0].numel()) >= MIN_SIDE


def orthogonalized(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Approximately the nearest matrix with orthonormal rows or columns.

    Singular values become 0.7 to 1.2, singular vectors stay the same.

    Args:
        matrix: (R, C), any scale.

    Returns:
        (R, C), dtype of `matrix`; the products are computed in bfloat16, which is precise enough for the iteration.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result
