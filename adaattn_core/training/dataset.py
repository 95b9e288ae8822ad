"""Training pictures: folders, lists or tar files in, random crops out, each a pure function of (seed, index).

Nothing here keeps a state between items, so a run that resumes at step n draws what an uninterrupted run would.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError as DataError
from ..io.images import from_pil, to_pil
from ..io.picture_sources import Member, Picture, frame_pairs, listed_pictures, opened

T = TypeVar("T")

MAX_CONSECUTIVE_FAILURES = 100
"""Unreadable pictures in a row before the folders are taken to be wrong."""


class Sample(NamedTuple):
    """One training pair.

    content, style, target: (3, crop, crop) in [0, 1]. `target` of a self pair is what the result should be, pixel by
    pixel; of a pair of frames the second one, content being the first; else it is the content. broken: unreadable files
    met on the way.
    """

    content: Tensor
    style: Tensor
    target: Tensor
    broken: tuple[str, ...]


class Batch(NamedTuple):
    """Samples of one step: (B, 3, crop, crop) each, and the unreadable files of all."""

    content: Tensor
    style: Tensor
    target: Tensor
    broken: tuple[str, ...]


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples as a batch."""
    content, style, target = (torch.stack(images) for images in list(zip(*samples, strict=True))[:3])
    return Batch(content, style, target, tuple(name for sample in samples for name in sample.broken))


class TrainingPairs(Dataset[Sample]):
    """Endless random pairs: item i depends on the seed and i alone.

    A style pair is a crop of a content picture and a crop of a style picture; for a video model there are two contents,
    frames of a clip or a still picture that is moved. A self pair has one picture on both sides: content = a crop with
    its colours changed, style = a larger, turned or mirrored crop around it, target = the crop as it was; the colours
    can only come back through the attention.

    Args:
        content, style: folders, lists or tar files, see `listed_pictures`.
        crop: side of all crops in pixels.
        seed: of everything drawn.
        length: number of items.
        batch: items per step; the first `self_items` of each step are self pairs.
        self_items: 0 to batch.
        self_only_until: items before this index are self pairs, all of them.
        frame_gap: None for single contents; 0 for stills that are moved; N for two frames of a clip, the second up to N
            after the first. A clip is the pictures of one folder, in the order of their names and numbers.

    Raises:
        ImageError, DataError: no pictures, or no clips.
    """

    def __init__(
        self,
        content: str | Path,
        style: str | Path,
        *,
        crop: int,
        seed: int,
        length: int,
        batch: int,
        self_items: int,
        self_only_until: int,
        frame_gap: int | None = None,
    ) -> None:
        self.content, self.style = listed_pictures(content), listed_pictures(style)
        self.frame_gap = frame_gap
        self.pairs_of_frames = frame_pairs(self.content, frame_gap) if frame_gap else []
        if frame_gap and not self.pairs_of_frames:
            raise DataError(
                f"no folder of {content} holds two pictures, and two frames of a clip are needed. Give each clip a "
                "folder of its own, or make pairs of stills with --frame-gap 0."
            )
        self.crop, self.seed, self.length = crop, seed, length
        self.batch, self.self_items, self.self_only_until = batch, self_items, self_only_until

    def __len__(self) -> int:
        return self.length

    @property
    def counts(self) -> dict[str, int]:
        """Pictures there are of each kind."""
        return {"content": len(self.content), "style": len(self.style)}

    def __getitem__(self, index: int) -> Sample:
        generator = seeded_generator(self.seed, index)
        broken: list[str] = []
        if index < self.self_only_until or index % self.batch < self.self_items:
            picture = self._draw([*self.content, *self.style], generator, broken)
            content, style, target = reconstruction_pair(picture, self.crop, generator)
        else:
            content, target = self._contents(generator, broken)
            style = random_crop(self._draw(self.style, generator, broken), self.crop, (1.0, 2.5), generator)
            if uniform(generator) < 0.3:
                style = color_jitter(style, generator)
        return Sample(content, style, target, tuple(broken))

    def _contents(self, generator: torch.Generator, broken: list[str]) -> tuple[Tensor, Tensor]:
        """Crops of a content and of the frame after it; twice the same without frames."""
        if self.frame_gap:
            first, second = self._read(lambda: random_choice(self.pairs_of_frames, generator), broken)
            frames = [first, second if second.size == first.size else second.resize(first.size)]
            one, other = paired_random_crop(frames, self.crop, (1.0, 2.0), generator)
            return one, other
        picture = self._draw(self.content, generator, broken)
        if self.frame_gap == 0:
            return synthetic_motion_pair(picture, self.crop, (1.0, 2.0), generator)
        content = random_crop(picture, self.crop, (1.0, 2.0), generator)
        return content, content

    def _draw(self, paths: list[Picture], generator: torch.Generator, broken: list[str]) -> Image.Image:
        """A random readable picture; unreadable ones met on the way are named in `broken`."""
        return self._read(lambda: [random_choice(paths, generator)], broken)[0]

    def _read(self, choose: Callable[[], Sequence[Picture]], broken: list[str]) -> list[Image.Image]:
        """The first chosen pictures that are all readable."""
        reason = ""
        for _ in range(MAX_CONSECUTIVE_FAILURES):
            pictures = []
            for path in choose():
                try:
                    pictures.append(read_picture(path, self.crop))
                except Exception as error:  # codecs raise anything on damaged data; one file must not end a run of days
                    broken.append(str(path))
                    reason = " ".join(str(error).split()) or type(error).__name__
                    break
            else:
                return pictures
        raise DataError(
            f"{MAX_CONSECUTIVE_FAILURES} pictures in a row cannot be read, the last is {path} ({reason}). Check the training folders."
        )


def seeded_generator(seed: int, index: int) -> torch.Generator:
    """A generator of its own for an item or a step.

    Torch's CPU generator takes 32 bits of its seed; runs of different seeds take theirs from far apart in these.
    """
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + index) % 2**32)


def read_picture(picture: Picture, crop: int) -> Image.Image:
    """RGB, over white where transparent, for crops of `crop` pixels: a JPEG is decoded at a reduced scale.

    Nothing is scaled up, and the EXIF orientation of plain pictures is ignored: training mirrors and turns anyway.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # scans of paintings are that large
        with _opened(picture) as image:
            image.draft("RGB", (4 * crop, 4 * crop))
            if image.mode in ("1", "L", "RGB", "CMYK", "YCbCr") and not image.has_transparency_data:
                return image.convert("RGB")
            return to_pil(from_pil(image))  # 16 bit, palettes, alpha


def _opened(picture: Picture) -> Image.Image:
    try:
        return Image.open(opened(picture))
    except UnidentifiedImageError:
        if isinstance(picture, Member):  # whose name Pillow does not know
            raise OSError(f"cannot identify image file '{picture}'") from None
        raise


def random_choice(items: Sequence[T], generator: torch.Generator) -> T:
    return items[int(torch.randint(len(items), (), generator=generator))]


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


Scale = tuple[float, float]
"""Least and greatest side of a crop, in sides of what it is resized to."""


def random_crop(picture: Image.Image, crop: int, scale: Scale, generator: torch.Generator) -> Tensor:
    """A square of `scale` times `crop` pixels, less where the picture is smaller; resized to `crop`, maybe mirrored."""
    return paired_random_crop([picture], crop, scale, generator)[0]


def paired_random_crop(
    pictures: Sequence[Image.Image], crop: int, scale: Scale, generator: torch.Generator
) -> list[Tensor]:
    """`random_crop` of several pictures of one size, the same in all."""
    size = pictures[0].size
    side = min(uniform(generator, *scale) * crop, *size)
    left, top = (uniform(generator, 0, length - side) for length in size)
    squares = [_cut(picture, left, top, side, crop) for picture in pictures]
    return [square.flip(-1) for square in squares] if uniform(generator) < 0.5 else squares


def synthetic_motion_pair(
    picture: Image.Image, crop: int, scale: Scale, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Two frames of a still picture, as a camera sees it that moves by up to 4 % of the crop and zooms by up to 3 %."""
    room = [0.94 * length for length in picture.size]
    side = min(uniform(generator, *scale) * crop, *room)
    corner = [uniform(generator, 0, length - side) for length in picture.size]
    zoomed = side * uniform(generator, 0.97, 1.03)
    moved = [
        min(max(start + (side - zoomed) / 2 + side * uniform(generator, -0.04, 0.04), 0.0), length - zoomed)
        for start, length in zip(corner, picture.size, strict=True)
    ]
    one, other = _cut(picture, corner[0], corner[1], side, crop), _cut(picture, moved[0], moved[1], zoomed, crop)
    return (one.flip(-1), other.flip(-1)) if uniform(generator) < 0.5 else (one, other)


def reconstruction_pair(picture: Image.Image, crop: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """content, style, target of a self pair; see TrainingPairs."""
    side = min(uniform(generator, 1.0, 1.6) * crop, *picture.size)
    left, top = (uniform(generator, 0, length - side) for length in picture.size)
    target = _cut(picture, left, top, side, crop)
    wide = min(uniform(generator, 1.0, 1.4) * side, *picture.size)
    wide_left, wide_top = (
        min(max(start - uniform(generator, 0, wide - side), 0.0), length - wide)
        for start, length in zip((left, top), picture.size, strict=True)
    )
    style = _cut(picture, wide_left, wide_top, wide, crop)
    style = torch.rot90(style, int(torch.randint(4, (), generator=generator)), dims=(-2, -1))
    if uniform(generator) < 0.5:
        style = style.flip(-1)
    return color_jitter(target, generator), style, target


def color_jitter(image: Tensor, generator: torch.Generator) -> Tensor:
    """(3, H, W) with channels mixed at random, other contrast, brightness and gamma; structure is kept."""
    order = torch.randperm(3, generator=generator) if uniform(generator) < 0.3 else torch.arange(3)
    mixing = torch.eye(3)[order] + 0.2 * torch.randn(3, 3, generator=generator)
    mixed = torch.einsum("oc,chw->ohw", mixing / mixing.sum(dim=1, keepdim=True).abs().clamp_min(0.5), image)
    contrast = uniform(generator, 0.6, 1.3)
    shift = 0.15 * torch.randn(3, 1, 1, generator=generator)
    jittered = ((mixed - 0.5) * contrast + 0.5 + shift).clamp(0, 1)
    return jittered ** uniform(generator, 0.7, 1.4)


def _cut(picture: Image.Image, left: float, top: float, side: float, crop: int) -> Tensor:
    box = (left, top, min(left + side, picture.width), min(top + side, picture.height))
    square = picture.resize((crop, crop), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
