"""The encoder: the convolutions of VGG-19 up to relu5_1, at any width.

Source: Simonyan & Zisserman, arXiv:1409.1556, configuration E. Shape letters: B batch, C channels, H W rows and
columns of pixels or of a level's grid (level x has stride 2**(x-1), sizes rounded up).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn import Conv2d

from ..ops import winograd
from ..ops.resize import MIN_SIDE
from ..ops.tiling import RowTile, empty_channels_last, row_tiles, tile_rows
from ..runtime.device import autocasts, without_autocast
from ..runtime.memory import malloc_trim_if_large

Features = dict[str, Tensor]
"""level name -> (B, C, H, W). A level that is needed only where the keys of deeper ones look may be there as, for
example, "relu1_1@relu3_1" instead: relu1_1 on relu3_1's grid."""

LEVELS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
"""Levels an encoder returns, shallow to deep."""

ATTENTION_LEVELS = LEVELS[2:]
"""Levels that have attention in one model or another."""

VGG19_CHANNELS = (64, 128, 256, 512, 512)
VGG19_CONVS = (2, 2, 4, 4, 1)
"""Convolutions in each block; block 5 stops at relu5_1, the deepest level AdaAttN reads."""


class ReflectConv2d(nn.Conv2d):
    """3x3 convolution, stride 1, that mirrors the border so that no frame of zeros is painted into the picture."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Cin, H, W) -> (B, Cout, H, W) in the dtype of the weights, whatever comes in (autocast decides itself).

        An axis of one position has nothing to mirror and is repeated.
        """
        if x.dtype != self.weight.dtype and not autocasts(x.device.type):
            x = x.to(self.weight.dtype)
        if self.bias is not None and winograd.is_faster(x, self.weight):
            return winograd.conv3x3(x, self.weight, self.bias)
        with without_autocast(x.device.type):  # autocast would pad in float32, at twice the cost
            x = reflect_pad1(x)
        return super().forward(x)


def reflect_pad1(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 2, W + 2), mirrored at the border."""
    height, width = x.shape[-2:]
    if min(height, width) > 1:
        return F.pad(x, (1, 1, 1, 1), mode="reflect")
    x = F.pad(x, (1, 1, 0, 0), mode="reflect" if width > 1 else "replicate")
    return F.pad(x, (0, 0, 1, 1), mode="reflect" if height > 1 else "replicate")


def conv_names(convs: Sequence[int]) -> list[str]:
    """Names of the 3x3 convolutions in order: `conv1_1`, `conv1_2`, `conv2_1`, ..."""
    return [f"conv{block}_{index}" for block, count in enumerate(convs, 1) for index in range(1, count + 1)]


class VGGEncoder(nn.Module):
    """VGG-19 shaped encoder; preprocessing is inside, as a 1x1 convolution `conv0` on RGB in [0, 1].

    Differs from VGG-19: reflection instead of zero padding, and pools that round sizes up, both as in the
    published AdaAttN code.

    Args:
        channels: width of each of the five blocks.
        convs: convolutions in each block.
    """

    def __init__(self, channels: Sequence[int] = VGG19_CHANNELS, convs: Sequence[int] = VGG19_CONVS) -> None:
        super().__init__()
        if len(channels) != 5 or len(convs) != 5 or min(*channels, *convs) < 1:
            raise ValueError(f"an encoder has five blocks; got channels {tuple(channels)} and convs {tuple(convs)}")
        self.channels, self.convs = tuple(channels), tuple(convs)
        self.conv0 = Conv2d(3, 3, kernel_size=1)
        self.layers = nn.ModuleDict()
        width = 3
        for name in conv_names(convs):
            block_width = channels[int(name[4]) - 1]
            self.layers[name] = ReflectConv2d(width, block_width)
            width = block_width

    def forward(self, images: Tensor, deepest: str = "relu5_1") -> Features:
        """Features of every level down to `deepest`.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], H and W at least 16.
            deepest: last level wanted; later convolutions are not run.

        Returns:
            level name -> (B, C, ceil(H / stride), ceil(W / stride)), >= 0, dtype of the weights.

        Raises:
            ValueError: wrong shape, or a side under 16 pixels.
        """
        check_images(images)
        features: Features = {}
        x = self.conv0(images)
        for name, conv in self.layers.items():
            if name.endswith("_1") and name != "conv1_1":
                x = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)
            x = torch.relu_(conv(x))
            if name.endswith("_1"):
                level = name.replace("conv", "relu")
                features[level] = x
                if level == deepest:
                    break
        return features

    @torch.no_grad()
    def encode(self, images: Tensor, levels: Sequence[str], tile_bytes: int | None = None) -> Features:
        """What attention at `levels` reads: those levels whole, shallower ones on their grids only.

        Like `forward`, in a third of the memory and less time: strips of rows go through a block at once, and what
        nobody reads is not kept. For inference: gradients are not recorded.

        Args:
            images: as in `forward`.
            levels: shallow to deep.
            tile_bytes: see `tile_rows`.

        Returns:
            features, such as {"relu1_1@relu3_1", "relu2_1@relu3_1", "relu3_1"} for relu3_1.
        """
        check_images(images)
        features: Features = {}
        x = images
        for block, level in enumerate(LEVELS[: LEVELS.index(levels[-1]) + 1]):
            wanted = {level: level} if level in levels else {f"{level}@{name}": name for name in levels}
            maps = {
                key: _GridSampler(images, self.channels[block], _grid(images, level), _grid(images, name))
                for key, name in wanted.items()
                if LEVELS.index(name) >= block
            }
            x = self._encode_block(block, x, list(maps.values()), level == levels[-1], tile_bytes)
            features |= {key: one.map for key, one in maps.items()}
            malloc_trim_if_large(images)
        return features

    def _encode_block(
        self, block: int, x: Tensor, maps: Sequence[_GridSampler], last: bool, tile_bytes: int | None
    ) -> Tensor:
        """The next block's input, (B, C, H / 2, W / 2) rounded up; gives the block's level to `maps` on the way.

        After the `last` level the block is left, and what is returned is not the pooled one.
        """
        convs = [conv for name, conv in self.layers.items() if name.startswith(f"conv{block + 1}_")]
        channels = self.channels[block]
        first, *others = convs[:1] if last else convs
        halo = 1 + len(others)
        rows, columns = x.shape[-2:]
        pooled = empty_channels_last(x, channels, 0 if last else -(-rows // 2), -(-columns // 2))
        for strip in row_tiles(rows, tile_rows(x, channels, halo, tile_bytes), halo):
            window = x[:, :, strip.low : strip.high]
            if not block:
                window = self.conv0(window.contiguous(memory_format=torch.channels_last))
            y = torch.relu_(first(window))
            for one in maps:
                one.add(strip, y)
            if last:
                continue
            for conv in others:
                y = torch.relu_(conv(y))
            y = F.max_pool2d(strip.cut(y), kernel_size=2, stride=2, ceil_mode=True)
            pooled[:, :, strip.start // 2 : strip.start // 2 + y.shape[2]] = y
        return pooled


class _GridSampler:
    """A level put together from strips: on its own grid, or where nearest resizing to a coarser one takes it from.

    Args:
        like: (B, ...), of the features' device and dtype.
        channels: of the level.
        size: of the level's grid.
        target: grid wanted.
    """

    def __init__(self, like: Tensor, channels: int, size: tuple[int, int], target: tuple[int, int]) -> None:
        self.map = empty_channels_last(like, channels, *target)
        taken = [_nearest(*sizes) for sizes in zip(size, target, strict=True)]
        self.known_rows = taken[0].tolist()  # by the processor, which need not wait for the device to cut strips
        self.rows, self.columns = torch.split(torch.cat(taken).to(like.device), list(target))
        self.whole = size == target

    def add(self, strip: RowTile, computed: Tensor) -> None:
        """What lies in a strip of the level's grid; `computed` is (B, C, high - low, W)."""
        first, last = (bisect_left(self.known_rows, row) for row in (strip.start, strip.stop))
        if self.whole:
            self.map[:, :, first:last] = strip.cut(computed)
            return
        rows = self.rows[first:last, None] - strip.low
        chosen = (rows * computed.shape[3] + self.columns).flatten()
        taken = rearrange(computed, "b c h w -> b (h w) c").index_select(1, chosen)
        self.map[:, :, first:last] = rearrange(taken, "b (h w) c -> b c h w", w=len(self.columns))


def _nearest(positions: int, target: int) -> Tensor:
    """Indices that nearest resizing from `positions` to `target` takes; made by the resizing itself."""
    return F.interpolate(torch.arange(positions, dtype=torch.float64)[None, None], size=target)[0, 0].long()


def _grid(images: Tensor, level: str) -> tuple[int, int]:
    """Rows and columns of a level."""
    stride = 2 ** LEVELS.index(level)
    return -(-images.shape[-2] // stride), -(-images.shape[-1] // stride)


def resize_to_level(features: Features, name: str, level: str) -> Tensor:
    """Level `name` on the grid of a deeper one, resized nearest: (B, C, H, W), H and W those of `level`."""
    resized = features.get(f"{name}@{level}")
    if resized is not None:
        return resized
    return features[name] if name == level else F.interpolate(features[name], size=features[level].shape[-2:])


def check_images(images: Tensor, role: str = "picture") -> None:
    """ValueError unless (B, 3, H, W) with sides of at least 16 pixels; `role` names the picture in its text."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"the {role} has shape {tuple(images.shape)}; (batch, 3, height, width) is needed")
    height, width = images.shape[-2:]
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"the {role} is {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed. "
            "Resize the picture first."
        )
