"""3x3 convolutions with a quarter of the multiplications: Winograd's, on a processor, as a few large matrix products.

PyTorch's own choice on a processor is oneDNN, which multiplies directly. Here 6 x 6 positions are transformed,
multiplied with the transformed kernel, and transformed back to 4 x 4 positions: 36 products in place of 144. Rounding
is 1e-5 of the largest value in place of 1e-6, still well below what a picture shows.

Source: Lavin & Gray, CVPR 2016, section 4.3, F(4x4, 3x3).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..runtime.device import autocasts

FEWEST_CHANNELS = 64
"""Of the narrower side. Below, the transforms cost what the products save. Share of the direct one's time, by
benchmarks/convolutions.py with AVX-512 and with AVX2: 32 channels 3.7 and 2.5, 64 about 1 and .75, 256 .55 and .47."""

CHUNK_BYTES = 6 * 2**20
"""Of transformed positions, which are multiplied while a processor's cache still holds them."""

KERNEL_BYTES = 10 * 2**20
"""Of a transformed kernel, which is four times as large as the kernel: wide ones are made in pieces."""

OUT_TILE = 4
IN_TILE = OUT_TILE + 2

_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float32,
)
_KERNEL = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float32
).div_(24)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float32
)
B_T, G, A_T = (torch.kron(one, one) for one in (_INPUT, _KERNEL, _OUTPUT))
"""Of both directions at once: (36, 36), (36, 9), (16, 36)."""


def is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether `conv3x3` is faster: on a processor, where no gradient is wanted, also for half precision, whose direct
    convolution takes longer even where it is native (autocast would transform in it)."""
    return (
        x.device.type == "cpu"
        and not autocasts("cpu")
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and not torch.is_grad_enabled()
        and min(weight.shape[:2]) >= FEWEST_CHANNELS
    )


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, Cin, H, W), (Cout, Cin, 3, 3), (Cout,) -> (B, Cout, H, W), channels last; the border is mirrored.

    Of half precision, numbers in and out: what is made between them is float32.
    """
    dtype, x, weight, bias = x.dtype, x.float(), weight.float(), bias.float()
    batch, width_in, height, width = x.shape
    rows, columns = -(-height // OUT_TILE), -(-width // OUT_TILE)
    windows = _windows(height, width)
    found = x.new_empty(batch, rows * OUT_TILE, columns * OUT_TILE, len(weight))
    kernels = torch.split(weight, _kernel_channels(width_in))
    whole = None if len(kernels) > 1 else _transformed(weight)
    some = rows if whole is None else max(1, CHUNK_BYTES // (IN_TILE**2 * columns * width_in * x.element_size()))
    for item, into in zip(rearrange(x, "b c h w -> b (h w) c"), found, strict=True):
        for start in range(0, rows, some):
            chosen = windows[:, start : start + some]
            gathered = item.index_select(0, chosen.flatten()).view(IN_TILE**2, -1)
            values = (B_T @ gathered).view(IN_TILE**2, -1, width_in)
            del gathered
            done = 0
            strip = rearrange(
                into[start * OUT_TILE :][: chosen.shape[1] * OUT_TILE],
                "(r i) (c j) k -> i j r c k",
                i=OUT_TILE,
                j=OUT_TILE,
            )
            for kernel in kernels:
                products = torch.bmm(values, _transformed(kernel) if whole is None else whole)
                part = slice(done, done + len(kernel))
                painted = (A_T @ products.view(IN_TILE**2, -1)).view(*strip.shape[:4], len(kernel))
                torch.add(painted, bias[part], out=strip[..., part])
                done += len(kernel)
    return rearrange(found[:, :height, :width], "b h w c -> b c h w").to(dtype)


def kernel_bytes(width_in: int) -> int:
    """The most of a transformed kernel that is there at one time."""
    return 0 if width_in < FEWEST_CHANNELS else 4 * IN_TILE**2 * width_in * _kernel_channels(width_in)


def _kernel_channels(width_in: int) -> int:
    """How many output channels are multiplied at once."""
    return max(FEWEST_CHANNELS, KERNEL_BYTES // (4 * IN_TILE**2 * width_in))


def _transformed(weight: Tensor) -> Tensor:
    """(Cout, Cin, 3, 3) -> (36, Cin, Cout)."""
    kernel = rearrange(weight, "o i h w -> (h w) (i o)")
    return (G @ kernel).view(IN_TILE**2, weight.shape[1], len(weight))


def _windows(height: int, width: int) -> Tensor:
    """(36, rows, columns) of windows: which of a picture's positions, row after row, each of them looks at."""
    down, across = _mirrored(height), _mirrored(width)
    return rearrange(down[:, None, :, None] * width + across[:, None, :], "i j r c -> (i j) r c")


def _mirrored(positions: int) -> Tensor:
    """(6, windows): positions that windows of one direction look at, one beyond each border being the mirrored one.
    A single position is repeated; those further on are there for whole windows' sake, and whatever they are."""
    starts = torch.arange(0, positions, OUT_TILE) - 1
    seen = (starts + torch.arange(IN_TILE)[:, None]).abs()
    last = positions - 1
    return torch.where(seen > last, 2 * last - seen, seen).clamp(0, last)
