"""Shapes in words, for messages: how many pictures or masks there are, of what size, and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

OVERSHOOT = 0.25
"""Bicubic resizing makes values this far outside [0, 1] at edges; they are clamped. Values farther out are refused."""
ROUNDING = 1e-3
"""Values this far outside [0, 1] are rounding."""


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "picture"), counted(3, "picture")
    ('1 picture', '3 pictures')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def check_tensor(value: object, role: str, reader: str = "load_image") -> None:
    """ValueError unless it is a tensor; `reader` is the function of ours that reads one from a file."""
    if not isinstance(value, Tensor):
        raise ValueError(
            f"the {role} is of type {type(value).__name__}; a tensor is needed. {reader} reads one from a file."
        )


def pictures_in_words(shape: Sequence[int], noun: str = "picture") -> str:
    """What a tensor of this shape holds, if it is (batch, channels, height, width) or lacks some of these.

    >>> pictures_in_words((2, 4, 48, 64))
    '2 pictures of 64x48 pixels with 4 channels'
    >>> pictures_in_words((3, 48, 64))
    '1 picture of 64x48 pixels with 3 channels and no batch'
    """
    if len(shape) == 4:
        return f"{counted(shape[0], noun)} of {shape[3]}x{shape[2]} pixels with {counted(shape[1], 'channel')}"
    if len(shape) == 3:
        return f"1 {noun} of {shape[2]}x{shape[1]} pixels with {counted(shape[0], 'channel')} and no batch"
    if len(shape) == 2:
        return f"1 {noun} of {shape[1]}x{shape[0]} pixels without channels and batch"
    return counted(shape[0], "number") if len(shape) == 1 else f"numbers in {len(shape)} dimensions"


def picture_advice(shape: Sequence[int], name: str) -> str:
    """What makes pictures of a tensor with a wrong layout."""
    if len(shape) == 4 and shape[-1] in (1, 3, 4) and shape[1] not in (1, 3, 4):
        return f"Move its channels forward: {name}.movedim(-1, 1)."
    if len(shape) == 3 and shape[0] == 3:
        return f"Add the batch: {name}[None]."
    if len(shape) == 3 and shape[-1] == 3:
        return f"Move its channels forward and add the batch: {name}.movedim(-1, 0)[None]."
    if len(shape) == 4 and shape[1] == 4:
        return f"Take the colours without the opacity: {name}[:, :3]."
    if len(shape) == 4 and shape[1] == 1:
        return f"Repeat its channel: {name}.expand(-1, 3, -1, -1)."
    return "Give red, green and blue."


def value_range(values: Tensor) -> tuple[float, float]:
    """The smallest and the largest value; NaN if there is one. An accelerator is waited for once."""
    if values.numel() == 0:
        return 0.0, 0.0
    low, high = torch.stack(values.detach().aminmax()).tolist()
    return float(low), float(high)


def range_problem(low: float, high: float) -> str | None:
    """Why values in this range are no pictures or masks, as the rest of a sentence; None within OVERSHOOT of [0, 1]."""
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:  # written so that NaN fails
        return None
    if not (math.isfinite(low) and math.isfinite(high)):
        return "holds NaN or infinite values; numbers in [0, 1] are needed"
    return f"holds values from {low:g} to {high:g}; [0, 1] is needed. Scale or clip them."


def is_clamped(low: float, high: float) -> bool:
    """Whether clamping to [0, 1] changes values by more than rounding."""
    return low < -ROUNDING or high > 1 + ROUNDING
