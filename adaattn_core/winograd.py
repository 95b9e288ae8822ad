"""3x3 convolutions with a third of the multiplications: Winograd's, in the NNPACK that PyTorch is built with on most
processors.

PyTorch's own choice on a processor is oneDNN, which multiplies directly. NNPACK's tiles of 8 x 8 take 64 products for
36 positions in place of 324 (Lavin & Gray, CVPR 2016). Its rounding is some 20 times that of a direct convolution,
2e-5 of the largest value, still well below what a picture shows.
"""

from __future__ import annotations

import torch
from torch import Tensor

AVAILABLE: bool = torch.backends.nnpack.is_available()  # type: ignore[no-untyped-call]  # the call sets it up, too

FEWEST_CHANNELS = 64
"""Of the narrower side. Below, transforms and the change of memory layout cost what the products save. Measured on one
core, 66 rows of 130 to 514 positions, change of layout included, of the direct time: 32 channels 1.1, 64 1.1 (.63 where
neighbours are computed so too), 96 .84, 256 .5."""


def preferred(x: Tensor, weight: Tensor) -> bool:
    """Whether `convolve` is there and faster: on a processor, in float32, where no gradient is wanted."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and min(weight.shape[:2]) >= FEWEST_CHANNELS
        and AVAILABLE
    )


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, Cin, H, W), (Cout, Cin, 3, 3), (Cout,) -> (B, Cout, H - 2, W - 2)."""
    found: Tensor = torch._nnpack_spatial_convolution(x.contiguous(), weight.contiguous(), bias, padding=0)
    return found
