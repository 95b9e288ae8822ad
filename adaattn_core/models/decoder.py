"""The decoder: fused features back to a picture, a mirror of the encoder without its deepest block.

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
"""How many keep within 2/255: each of the others adds up to 1.8/255 by itself (benchmarks/precision.py)."""


class Decoder(nn.Module):
    """Convolutions with reflection padding and ReLU, upsampled between blocks; the last convolution is linear.

    Args:
        channels: encoder width of each block.
        convs: convolutions on the relu3_1, relu2_1 and relu1_1 grids; published: (4, 2, 2).
        skip: True when relu4_1-grid features come with a relu3_1 skip (image model), False for one level.
        upsample: "nearest" (published) or "bilinear".
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
        """Weights that keep the size of the signal through every layer, and a mid-grey picture to start from.

        torch's default shrinks it to a third at each layer, and the first thousand steps with it.
        """
        convs = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            convs[-1].weight.mul_(0.1)
            nn.init.constant_(convs[-1].bias, 0.5)  # type: ignore[arg-type]

    def set_precision(self, dtype: torch.dtype) -> None:
        """Convolutions in `dtype`, from the deepest on, and those in float32 at least whose rounding would show."""
        self.to(torch.promote_types(dtype, torch.float32))
        convs = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        for conv in convs[:BFLOAT16_CONVS] if dtype == torch.bfloat16 else convs[:-1]:
            conv.to(dtype)

    def forward(self, fused: FusedFeatures, size: Sequence[int]) -> Tensor:
        """Paint.

        Args:
            fused: result of the fusion.
            size: (height, width) of the picture, as encoded.

        Returns:
            (B, 3, height, width), about [0, 1], not clamped.
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
        """What `forward` paints, in less memory and time: strips of rows go through a block at once.

        For inference: gradients are not recorded. `tile_bytes` as in `tile_rows`.
        """
        x, skip = fused
        doubled = self.deep is not None and skip is not None
        if self.deep is not None and skip is not None:
            x, skip = torch.relu_(self.deep(x)), skip.to(self.deep.weight.dtype)
        for index, (block, grid) in enumerate(zip(self.blocks, _grids(size), strict=True)):
            convs = [conv for conv in block.modules() if isinstance(conv, ReflectConv2d)]
            channels, halo = max(conv.in_channels for conv in convs), len(convs)
            painted = empty_channels_last(x, convs[-1].out_channels, *grid, dtype=convs[-1].weight.dtype)
            for strip in row_tiles(grid[0], tile_rows(painted, channels, halo, tile_bytes), halo):
                window = self._upsampled_window(x, strip, grid) if doubled or index else x[:, :, strip.low : strip.high]
                if index == 0 and skip is not None:
                    window = torch.cat([window, skip[:, :, strip.low : strip.high]], dim=1)
                painted[:, :, strip.start : strip.stop] = strip.cut(self._run(block, window, linear=index == 2))
            x = painted
        return x

    def _upsampled_window(self, x: Tensor, strip: RowTile, grid: Sequence[int]) -> Tensor:
        """Rows [low, high) of `x` upsampled to `grid`, made of one row more than these cover: bilinear mixes it in."""
        first, last = max(0, strip.low // 2 - 1), -(-strip.high // 2) + 1
        grown = F.interpolate(x[:, :, first:last], scale_factor=2, mode=self.upsample)
        return grown[:, :, strip.low - 2 * first : strip.high - 2 * first, : grid[1]]

    @staticmethod
    def _run(block: nn.Module, x: Tensor, linear: bool) -> Tensor:
        """Convolutions of one block; ReLU after each, but not after a `linear` block's last."""
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
