"""The encoder: the convolutions of VGG-19 up to relu5_1, at any width.

Source: Simonyan & Zisserman, arXiv:1409.1556, configuration E. Shape letters: B batch, C channels, H W rows and
columns of pixels or of a level's grid (relu{n}_1 has stride 2**(n - 1), sizes rounded up).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn import Conv2d
from torch.utils.checkpoint import checkpoint

from ..ops import winograd
from ..ops.layout import picture_advice, pictures_in_words
from ..ops.resize import MIN_SIDE
from ..ops.tiling import RowTile, empty_channels_last, row_tiles, tile_rows
from ..runtime.device import autocasts, without_autocast
from ..runtime.memory import malloc_trim_if_large

Features = dict[str, Tensor]
"""level name -> (B, C, H, W). A level that only deeper levels' keys use may be stored resized to their grids instead,
for example as "relu1_1@relu3_1": relu1_1 on the relu3_1 grid."""

LEVELS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
"""Levels an encoder returns, shallow to deep."""

ATTENTION_LEVELS = LEVELS[2:]
"""Levels that can have attention."""

VGG19_CHANNELS = (64, 128, 256, 512, 512)
VGG19_CONVS = (2, 2, 4, 4, 1)
"""Convolutions in each block; block 5 stops at relu5_1, the deepest level AdaAttN reads."""


class ReflectConv2d(nn.Conv2d):
    """3x3 convolution, stride 1, with reflection padding: zeros would leave a visible frame in the image."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, Cin, H, W), any dtype -> (B, Cout, H, W) in the dtype of the weights (under autocast: in its dtype)."""
        if x.dtype != self.weight.dtype and not autocasts(x.device.type):
            x = x.to(self.weight.dtype)
        if self.bias is not None and winograd.is_faster(x, self.weight):
            return winograd.conv3x3(x, self.weight, self.bias)
        with without_autocast(x.device.type):  # autocast would pad in float32, at twice the cost
            x = reflect_pad1(x)
        return super().forward(x)


def reflect_pad1(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 2, W + 2), reflected at the border; an axis with one position is replicated."""
    if x.dtype == torch.float16 and x.device.type == "cpu":  # torch 2.4 cannot pad these
        for axis in (-1, -2):
            last = x.shape[axis] - 1
            x = torch.cat((x.narrow(axis, min(1, last), 1), x, x.narrow(axis, max(last - 1, 0), 1)), axis)
        return x
    height, width = x.shape[-2:]
    if min(height, width) > 1:
        return F.pad(x, (1, 1, 1, 1), mode="reflect")
    x = F.pad(x, (1, 1, 0, 0), mode="reflect" if width > 1 else "replicate")
    return F.pad(x, (0, 0, 1, 1), mode="reflect" if height > 1 else "replicate")


def conv_names(convs: Sequence[int]) -> list[str]:
    """Names of the 3x3 convolutions in order, from convolutions per block.

    >>> conv_names([2, 1])
    ['conv1_1', 'conv1_2', 'conv2_1']
    """
    return [f"conv{block}_{index}" for block, count in enumerate(convs, 1) for index in range(1, count + 1)]


class VGGEncoder(nn.Module):
    """VGG-19 up to relu5_1, at any width; preprocessing is included as a 1x1 convolution `conv0` on RGB in [0, 1].

    Differs from VGG-19: reflection instead of zero padding, and pools that round sizes up, both as in the
    published AdaAttN code.

    Args:
        channels: width of each of the five blocks.
        convs: convolutions in each block.

    Raises:
        ValueError: not five positive numbers each.
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

    def forward(self, images: Tensor, deepest: str = "relu5_1", recompute: bool = False) -> Features:
        """Features of every level down to `deepest`.

        Args:
            images: (B, 3, H, W) RGB in [0, 1], H and W at least 16.
            deepest: last level to compute; later convolutions are not run.
            recompute: with gradients, compute each block again in the backward pass instead of keeping its activations:
                a third of the memory, a third more time.

        Returns:
            level name -> (B, C, ceil(H / stride), ceil(W / stride)), >= 0, in the dtype of the weights.

        Raises:
            ValueError: wrong shape, or a side under 16 pixels.
        """
        check_images(images)
        features: Features = {}
        x = self.conv0(images)
        for level in LEVELS[: LEVELS.index(deepest) + 1]:
            convs = self.block_convs(level)[: 1 if level == deepest else None]
            if level != LEVELS[0]:
                x = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)
            block = partial(checkpoint, _run_block, use_reentrant=False) if recompute else _run_block
            features[level], x = block(convs, x)
        return features

    def block_convs(self, level: str) -> list[nn.Module]:
        """The convolutions of the block whose first ReLU is `level`."""
        return [conv for name, conv in self.layers.items() if name[4] == level[4]]

    @torch.no_grad()
    def encode(self, images: Tensor, levels: Sequence[str], tile_bytes: int | None = None) -> Features:
        """The features that attention at `levels` needs: those levels complete, shallower ones resized to their grids.

        The values of `forward` in a third of the memory and less time, without gradients: each block runs on one row
        tile after the other, and positions that no key uses are not stored.

        Args:
            images: as in `forward`.
            levels: levels with attention, shallow to deep.
            tile_bytes: see `tile_rows`.

        Returns:
            features, with the keys "relu1_1@relu3_1", "relu2_1@relu3_1" and "relu3_1" for attention at relu3_1.

        Raises:
            ValueError: as `forward`.
        """
        check_images(images)
        features: Features = {}
        x = images
        for block, level in enumerate(LEVELS[: LEVELS.index(levels[-1]) + 1]):
            targets = {level: level} if level in levels else {f"{level}@{name}": name for name in levels}
            samplers = {
                key: _GridSampler(images, self.channels[block], _grid(images, level), _grid(images, target))
                for key, target in targets.items()
                if LEVELS.index(target) >= block
            }
            x = self._encode_block(block, x, list(samplers.values()), level == levels[-1], tile_bytes)
            features |= {key: sampler.output for key, sampler in samplers.items()}
            malloc_trim_if_large(images)
        return features

    def _encode_block(
        self, block: int, x: Tensor, samplers: Sequence[_GridSampler], last: bool, tile_bytes: int | None
    ) -> Tensor:
        """Run one block and add its level to the samplers.

        Returns:
            the input of the next block, (B, C, ceil(H / 2), ceil(W / 2)); with `last`, which stops at the level, an
            empty tensor.
        """
        convs = self.block_convs(LEVELS[block])
        channels = self.channels[block]
        first, *others = convs[:1] if last else convs
        halo = 1 + len(others)
        rows, columns = x.shape[-2:]
        pooled = empty_channels_last(x, channels, 0 if last else -(-rows // 2), -(-columns // 2))
        for tile in row_tiles(rows, tile_rows(x, channels, halo, tile_bytes), halo):
            window = x[:, :, tile.low : tile.high]
            if not block:
                window = self.conv0(window.contiguous(memory_format=torch.channels_last))
            y = torch.relu_(first(window))
            for sampler in samplers:
                sampler.add(tile, y)
            if last:
                continue
            for conv in others:
                y = torch.relu_(conv(y))
            y = F.max_pool2d(tile.crop(y), kernel_size=2, stride=2, ceil_mode=True)
            pooled[:, :, tile.start // 2 : tile.start // 2 + y.shape[2]] = y
        return pooled


def _run_block(convs: Sequence[nn.Module], x: Tensor) -> tuple[Tensor, Tensor]:
    """The first ReLU of a block, and its last."""
    first = x = torch.relu_(convs[0](x))
    for conv in convs[1:]:
        x = torch.relu_(conv(x))
    return first, x


class _GridSampler:
    """Resizes a level to a coarser grid, nearest, from row tiles of it; on an equal grid it assembles them.

    Args:
        like: (B, ...), with the device and dtype of the features.
        channels: of the level.
        size: (rows, columns) of the level.
        target: (rows, columns) of the output.
    """

    def __init__(self, like: Tensor, channels: int, size: tuple[int, int], target: tuple[int, int]) -> None:
        self.output = empty_channels_last(like, channels, *target)
        """(B, channels, *target); complete when every tile was added."""
        indices = [_nearest_indices(*sizes) for sizes in zip(size, target, strict=True)]
        self.host_rows = indices[0].tolist()  # a copy on the CPU: `add` slices without waiting for the device
        self.rows, self.columns = torch.split(torch.cat(indices).to(like.device), list(target))
        self.same_grid = size == target

    def add(self, tile: RowTile, features: Tensor) -> None:
        """Take the sampled positions from one row tile of the level, (B, C, high - low, W)."""
        first, last = (bisect_left(self.host_rows, row) for row in (tile.start, tile.stop))
        if self.same_grid:
            self.output[:, :, first:last] = tile.crop(features)
            return
        rows = self.rows[first:last, None] - tile.low
        positions = (rows * features.shape[3] + self.columns).flatten()
        sampled = rearrange(features, "b c h w -> b (h w) c").index_select(1, positions)
        self.output[:, :, first:last] = rearrange(sampled, "b (h w) c -> b c h w", w=len(self.columns))


def _nearest_indices(positions: int, target: int) -> Tensor:
    """(target,) int64: indices that torch's nearest resizing from `positions` to `target` reads."""
    return F.interpolate(torch.arange(positions, dtype=torch.float64)[None, None], size=target)[0, 0].long()


def _grid(images: Tensor, level: str) -> tuple[int, int]:
    """(rows, columns) of a level."""
    return -(-images.shape[-2] // stride(level)), -(-images.shape[-1] // stride(level))


def stride(level: str) -> int:
    """Pixels from one position of a level to the next."""
    return int(2 ** LEVELS.index(level))


def receptive_field(convs: Sequence[int], level: str) -> int:
    """Side, in pixels, of the square that one position of a level is computed from.

    Its centre is that of the position's own square of `stride(level)` pixels; at a border it is cut off.

    Args:
        convs: convolutions in each block of the encoder.
        level: one of LEVELS.

    >>> [receptive_field(VGG19_CONVS, level) for level in ATTENTION_LEVELS]
    [24, 68, 156]
    """
    side, step = 1, 1
    for count in convs[: LEVELS.index(level)]:
        side += 2 * step * count + step  # its convolutions, then the pool
        step *= 2
    return side + 2 * step


def resize_to_level(features: Features, name: str, level: str) -> Tensor:
    """Level `name` resized nearest to the grid of `level`, equal or deeper: (B, C, H, W), H and W those of `level`."""
    resized = features.get(f"{name}@{level}")
    if resized is not None:
        return resized
    return features[name] if name == level else F.interpolate(features[name], size=features[level].shape[-2:])


def check_images(images: Tensor, role: str = "picture") -> None:
    """Check for (B, 3, H, W) with sides of at least 16 pixels; `role` names the picture in the error.

    Raises:
        ValueError: another shape, or too small.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"the {role} is {pictures_in_words(images.shape)}; a batch of pictures with 3 channels is needed. "
            f"{picture_advice(images.shape, role)}"
        )
    if not len(images):
        raise ValueError(f"the {role} is a batch without pictures; at least 1 picture is needed")
    height, width = images.shape[-2:]
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"the {role} is {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed. "
            "Resize the picture first."
        )
