"""The decoder: fused features to an image, a mirror of the encoder's first four blocks.

Source: the published AdaAttN decoder, at any width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops.tiling import RowTile, empty_channels_last, row_tiles, tile_rows
from .encoder import ReflectConv2d
from .fusion import FusedFeatures, upsample_to

BFLOAT16_CONVS = 2
"""Convolutions, from the deepest, that run in bfloat16: the image stays within 2/255 of float32. Each further one adds
up to 1.8/255 (benchmarks/precision.py)."""


class Decoder(nn.Module):
    """Convolutions with reflection padding and ReLU, upsampling between blocks; the last convolution is linear.

    Args:
        channels: encoder width of each block.
        convs: convolutions on the relu3_1, relu2_1 and relu1_1 grids; published: (4, 2, 2).
        skip: True: input on the relu4_1 grid with a relu3_1 skip (image model); False: relu3_1 alone.
        upsample: "nearest" (published) or "bilinear".

    Raises:
        ValueError: `convs` is not three positive numbers.
    """

    def __init__(
        self, channels: Sequence[int], convs: Sequence[int] = (4, 2, 2), skip: bool = True, upsample: str = "nearest"
    ) -> None:
        super().__init__()
        if len(convs) != 3 or min(convs) < 1:
            raise ValueError(f"a decoder has three blocks; got convs {tuple(convs)}")
        self.upsample = upsample
        self.deep = ReflectConv2d(channels[3], channels[2]) if skip else None
        width = 2 * channels[2] if skip else channels[2]
        self.blocks = nn.ModuleList()
        for block_width, next_width, count in zip(
            (channels[2], channels[1], channels[0]), (*channels[1::-1], 3), convs, strict=True
        ):
            widths = [width, *[block_width] * (count - 1), next_width]
            self.blocks.append(nn.ModuleList(ReflectConv2d(a, b) for a, b in zip(widths, widths[1:], strict=False)))
            width = next_width

    def initialize(self) -> None:
        """Weights that keep the variance of the signal through every layer, and a mid-grey output to start from.

        torch's default shrinks the signal to a third at each layer, which costs about a thousand training steps.
        """
        convs = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            convs[-1].weight.mul_(0.1)
            nn.init.constant_(convs[-1].bias, 0.5)  # type: ignore[arg-type]

    def set_precision(self, dtype: torch.dtype) -> None:
        """Convert the deepest convolutions to `dtype`; those whose rounding would be visible stay in float32."""
        self.to(torch.promote_types(dtype, torch.float32))
        convs = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        for conv in convs[:BFLOAT16_CONVS] if dtype == torch.bfloat16 else convs[:-1]:
            conv.to(dtype)

    def forward(self, fused: FusedFeatures, size: Sequence[int]) -> Tensor:
        """The image of fused features.

        Args:
            fused: result of the fusion.
            size: (height, width) of the encoded picture.

        Returns:
            (B, 3, height, width), approximately in [0, 1], not clamped.
        """
        if not torch.is_grad_enabled():
            return self.in_tiles(fused, size)
        grids = _grids(size)
        x = fused.deep
        if self.deep is not None and fused.skip is not None:
            x = upsample_to(torch.relu_(self.deep(x)), grids[0], self.upsample)
            x = torch.cat([x, fused.skip], dim=1)
        for index, (block, grid) in enumerate(zip(self.blocks, grids, strict=True)):
            if index:
                x = upsample_to(x, grid, self.upsample)
            x = self._run(block, x, linear=index == 2)
        return x

    @torch.no_grad()
    def in_tiles(self, fused: FusedFeatures, size: Sequence[int], tile_bytes: int | None = None) -> Tensor:
        """`forward` in less memory and time, without gradients: each block runs on one row tile after the other.

        Args:
            fused, size: as in `forward`.
            tile_bytes: see `tile_rows`.
        """
        x, skip = fused
        upsample = self.deep is not None and skip is not None
        if self.deep is not None and skip is not None:
            x, skip = torch.relu_(self.deep(x)), skip.to(self.deep.weight.dtype)
        for index, (block, grid) in enumerate(zip(self.blocks, _grids(size), strict=True)):
            convs = [conv for conv in block.modules() if isinstance(conv, ReflectConv2d)]
            channels, halo = max(conv.in_channels for conv in convs), len(convs)
            output = empty_channels_last(x, convs[-1].out_channels, *grid, dtype=convs[-1].weight.dtype)
            for tile in row_tiles(grid[0], tile_rows(output, channels, halo, tile_bytes), halo):
                window = self._upsampled_window(x, tile, grid) if upsample or index else x[:, :, tile.low : tile.high]
                if index == 0 and skip is not None:
                    window = torch.cat([window, skip[:, :, tile.low : tile.high]], dim=1)
                output[:, :, tile.start : tile.stop] = tile.crop(self._run(block, window, linear=index == 2))
            x = output
        return x

    def _upsampled_window(self, x: Tensor, tile: RowTile, grid: Sequence[int]) -> Tensor:
        """Rows [low, high) of `x` upsampled to `grid`; bilinear interpolation also reads the row before and after."""
        first, last = max(0, tile.low // 2 - 1), -(-tile.high // 2) + 1
        upsampled = F.interpolate(x[:, :, first:last], scale_factor=2, mode=self.upsample)
        return upsampled[:, :, tile.low - 2 * first : tile.high - 2 * first, : grid[1]]

    @staticmethod
    def _run(block: nn.Module, x: Tensor, linear: bool) -> Tensor:
        """The convolutions of one block, ReLU after each except the last of a `linear` block."""
        assert isinstance(block, nn.ModuleList)
        for position, conv in enumerate(block, 1):
            x = conv(x)
            if not (linear and position == len(block)):
                x = torch.relu_(x)
        return x


def _grids(size: Sequence[int]) -> list[tuple[int, int]]:
    """Grids of relu3_1, relu2_1 and relu1_1 for a picture of `size`."""
    height, width = size
    return [(-(-height // stride), -(-width // stride)) for stride in (4, 2, 1)]
