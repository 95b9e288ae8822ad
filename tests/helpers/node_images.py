"""Pictures in the layout of ComfyUI: (batch, height, width, channels)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.helpers.small_models import picture

CONTENT, STYLE, OTHER = picture(48, 72), picture(45, 34, seed=1), picture(32, 48, seed=2)
LEFT = (torch.arange(72) < 36).float().expand(48, 72)


def image(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) as IMAGE."""
    return pictures.movedim(1, -1).contiguous()


def pixels(result: Tensor) -> Tensor:
    """IMAGE as (B, 3, H, W), checked to be one."""
    assert result.dtype == torch.float32 and result.ndim == 4 and result.shape[-1] == 3 and result.device.type == "cpu"
    assert result.min() >= 0 and result.max() <= 1
    return result.movedim(-1, 1)


def masked(run: Callable[..., Any], mask: Tensor, **options: Any) -> Tensor:
    """(B, 3, H, W): the result of the Stylize node with a content mask."""
    return pixels(
        run(
            "Stylize", model_name="built-in", content=image(CONTENT), style=image(STYLE), strength=1.0,
            content_mask=mask, **options,
        )
    )  # fmt: skip
