"""Random tensors from a seed, which draw nothing from the global generator."""

from __future__ import annotations

import torch
from torch import Tensor


def seeded(seed: int = 0) -> torch.Generator:
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def normals(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normals; the same seed gives the same numbers in every dtype, up to rounding."""
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)
