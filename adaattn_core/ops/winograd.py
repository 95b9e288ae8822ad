"""Winograd 3x3 convolution on the CPU: a quarter of the multiplications, as a few large matrix products.

PyTorch uses oneDNN's direct convolution on the CPU. Here tiles of 6 x 6 inputs are transformed, multiplied by the
transformed kernel, and transformed back to 4 x 4 outputs: 36 products instead of 144. The rounding error is 1e-5 of
the largest value instead of 1e-6, far below one 8-bit step of a picture.

Source: Lavin & Gray, CVPR 2016, section 4.3, F(4x4, 3x3); B_T, G and A_T are their letters.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..runtime.device import autocasts

MIN_CHANNELS = 64
"""Minimum of input and output channels; with fewer, the transforms cost more than the products save. Time relative to
direct convolution (benchmarks/convolutions.py), AVX-512 and AVX2: 32 channels 3.7 and 2.5, 64 channels about 1 and
.75, 256 channels .55 and .47."""

CHUNK_BYTES = 6 * 2**20
"""Memory for the transformed inputs of a chunk, which should stay in the CPU's cache until they are multiplied."""

KERNEL_BYTES = 10 * 2**20
"""Memory for the transformed kernel, four times as large as the kernel; wider kernels are split by output channels."""

OUT_TILE = 4
IN_TILE = OUT_TILE + 2

_B_T_1D = torch.tensor(
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
_G_1D = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float32
).div_(24)
_A_T_1D = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float32
)
B_T, G, A_T = (torch.kron(matrix, matrix) for matrix in (_B_T_1D, _G_1D, _A_T_1D))
"""Two-dimensional transforms of inputs (36, 36), kernels (36, 9) and outputs (16, 36)."""


def is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether `conv3x3` is faster than the direct convolution: on the CPU, without gradients, with enough channels.

    Half precision included, whose direct convolution is slower even where it is native; autocast excluded, which would
    compute the transforms in half precision.
    """
    return (
        x.device.type == "cpu"
        and not autocasts("cpu")
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and not torch.is_grad_enabled()
        and min(weight.shape[:2]) >= MIN_CHANNELS
    )


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3x3 convolution with reflection padding, in float32.

    Args:
        x: (B, Cin, H, W), float32 or half precision.
        weight: (Cout, Cin, 3, 3), in the dtype of `x`.
        bias: (Cout,), in the dtype of `x`.

    Returns:
        (B, Cout, H, W) in the dtype of `x`, channels last.
    """
    dtype, x, weight, bias = x.dtype, x.float(), weight.float(), bias.float()
    batch, channels, height, width = x.shape
    rows, columns = -(-height // OUT_TILE), -(-width // OUT_TILE)
    indices = _input_indices(height, width)
    output = x.new_empty(batch, rows * OUT_TILE, columns * OUT_TILE, len(weight))
    kernels = torch.split(weight, _kernel_channels(channels))
    transformed_kernel = _transform_kernel(weight) if len(kernels) == 1 else None
    rows_per_chunk = CHUNK_BYTES // (IN_TILE**2 * columns * channels * x.element_size())
    rows_per_chunk = rows if transformed_kernel is None else max(1, rows_per_chunk)
    for item, out_item in zip(rearrange(x, "b c h w -> b (h w) c"), output, strict=True):
        for start in range(0, rows, rows_per_chunk):
            chunk_indices = indices[:, start : start + rows_per_chunk]
            inputs = _transform_inputs(item, chunk_indices)
            out_chunk = out_item[start * OUT_TILE :][: chunk_indices.shape[1] * OUT_TILE]
            tiles = rearrange(out_chunk, "(r i) (c j) k -> i j r c k", i=OUT_TILE, j=OUT_TILE)
            stop = 0
            for kernel in kernels:
                first, stop = stop, stop + len(kernel)
                products = torch.bmm(
                    inputs, _transform_kernel(kernel) if transformed_kernel is None else transformed_kernel
                )
                out_tiles = (A_T @ products.view(IN_TILE**2, -1)).view(*tiles.shape[:4], len(kernel))
                torch.add(out_tiles, bias[first:stop], out=tiles[..., first:stop])
    return rearrange(output[:, :height, :width], "b h w c -> b c h w").to(dtype)


def kernel_bytes(channels: int) -> int:
    """Memory for the transformed kernel, or the part of it that exists at one time, from the number of inputs."""
    return 0 if channels < MIN_CHANNELS else 4 * IN_TILE**2 * channels * _kernel_channels(channels)


def _kernel_channels(channels: int) -> int:
    """Output channels of a transformed kernel, or of a part of it, from the number of input channels."""
    return max(MIN_CHANNELS, KERNEL_BYTES // (4 * IN_TILE**2 * channels))


def _transform_kernel(weight: Tensor) -> Tensor:
    """(Cout, Cin, 3, 3) -> (36, Cin, Cout)."""
    kernel = rearrange(weight, "o i h w -> (h w) (i o)")
    return (G @ kernel).view(IN_TILE**2, weight.shape[1], len(weight))


def _transform_inputs(item: Tensor, indices: Tensor) -> Tensor:
    """(positions, Cin) and (36, rows, columns) indices of its input tiles -> (36, rows * columns, Cin)."""
    gathered = item.index_select(0, indices.flatten()).view(IN_TILE**2, -1)
    return (B_T @ gathered).view(IN_TILE**2, -1, item.shape[1])


def _input_indices(height: int, width: int) -> Tensor:
    """(36, rows, columns) of output tiles: index into the flattened (H, W) of each of a tile's 36 inputs."""
    down, across = _reflected_indices(height), _reflected_indices(width)
    return rearrange(down[:, None, :, None] * width + across[:, None, :], "i j r c -> (i j) r c")


def _reflected_indices(positions: int) -> Tensor:
    """(6, tiles): the positions that each tile reads along one axis, reflected at both borders.

    An axis of one position is replicated. Positions further outside complete the last tile and are cropped later.
    """
    starts = torch.arange(0, positions, OUT_TILE) - 1
    indices = (starts + torch.arange(IN_TILE)[:, None]).abs()
    last = positions - 1
    return torch.where(indices > last, 2 * last - indices, indices).clamp(0, last)
