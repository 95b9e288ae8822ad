"""Training pairs: random crops of pictures in folders, lists or tar files, each a pure function of (seed, index).

No state is kept between items, so a run that resumes at step n draws the same pairs as an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError
from ..io.decoding import decode
from ..io.images import from_pil, to_pil
from ..io.picture_sources import Picture, frame_pairs, list_pictures, open_picture
from ..runtime.remarks import FileNote, collected_remarks
from .config import TrainConfig

T = TypeVar("T")

MAX_CONSECUTIVE_FAILURES = 100
"""Unreadable pictures in a row after which training stops, as the folders are probably wrong."""


class Sample(NamedTuple):
    """One training pair.

    content, style, target: (3, crop, crop) in [0, 1]. The target is the content itself; of a self pair it is the
    result that is required, pixel by pixel; of a pair of frames it is the second frame, the content being the first.
    is_self_pair: content and style are cut from one picture. notes: about files that were read, or could not be read.
    """

    content: Tensor
    style: Tensor
    target: Tensor
    is_self_pair: bool
    notes: tuple[FileNote, ...]

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Names of the files that could not be read."""
        return tuple(note.name for note in self.notes if note.is_unreadable)


class Batch(NamedTuple):
    """Samples of one step, the self pairs first.

    content, style, target: (B, 3, crop, crop) in [0, 1]. n_self_pairs: number of self pairs. notes: of all samples.
    """

    content: Tensor
    style: Tensor
    target: Tensor
    n_self_pairs: int
    notes: tuple[FileNote, ...]

    def micro_batch(self, index: int, count: int, device: torch.device) -> Batch:
        """Samples index, index + count, index + 2 count, ... on a device, in channels_last memory format."""
        content, style, target = (
            images[index::count].to(device, memory_format=torch.channels_last) for images in self[:3]
        )
        return Batch(content, style, target, len(range(index, self.n_self_pairs, count)), self.notes)


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples, of which the self pairs come first, to a batch."""
    return Batch(
        content=torch.stack([sample.content for sample in samples]),
        style=torch.stack([sample.style for sample in samples]),
        target=torch.stack([sample.target for sample in samples]),
        n_self_pairs=sum(sample.is_self_pair for sample in samples),
        notes=tuple(note for sample in samples for note in sample.notes),
    )


class PairSchedule(NamedTuple):
    """The number of pairs in a run, and which of them are self pairs."""

    length: int
    """Pairs in the whole run."""
    batch: int
    """Pairs in one step."""
    n_self_pairs: int = 0
    """The first pairs of each step that are self pairs."""
    self_pairs_until: int = 0
    """All pairs before this index are self pairs."""

    def is_self_pair(self, index: int) -> bool:
        """Whether the pair of this index is a self pair."""
        return index < self.self_pairs_until or index % self.batch < self.n_self_pairs


class TrainingPairs(Dataset[Sample]):
    """A fixed number of random pairs. Item i depends on the seed and on i only.

    A style pair consists of a crop of a content picture and a crop of a style picture. For a video model it has two
    contents: frames of a clip, or two views of a still picture. A self pair is made of one picture: the target is a
    crop, the content is the target with its colours changed, and the style is a larger crop around the target,
    rotated and mirrored. The model can restore the colours only through the attention.

    Args:
        content, style: folders, lists or tar files, see `list_pictures`.
        schedule: number of pairs, and which of them are self pairs.
        crop: side of all crops in pixels.
        seed: of all random choices.
        frame_gap: None for single contents; 0 for two views of a still picture; N for two frames of a clip, the second
            up to N after the first. A clip is the pictures of one folder, ordered by name, numbers by their value.
        damage: share of the single contents of style pairs that get noise or JPEG compression (`damaged`).

    Raises:
        ImageError: there are no pictures.
        DataError: there are no clips.
    """

    def __init__(
        self,
        content: str | Path,
        style: str | Path,
        schedule: PairSchedule,
        *,
        crop: int,
        seed: int,
        frame_gap: int | None = None,
        damage: float = 0.0,
    ) -> None:
        self.content, self.style = list_pictures(content), list_pictures(style)
        self.frame_gap = frame_gap
        self.frame_pairs = frame_pairs(self.content, frame_gap) if frame_gap else []
        if frame_gap and not self.frame_pairs:
            raise DataError(
                f"no folder of {content} holds two pictures, and two frames of a clip are needed. Give each clip a "
                "folder of its own, or make pairs of stills with --frame-gap 0."
            )
        self.schedule, self.crop, self.seed, self.damage = schedule, crop, seed, damage

    @classmethod
    def from_config(cls, config: TrainConfig) -> TrainingPairs:
        """The pairs of a training run."""
        schedule = PairSchedule(
            length=config.total_steps * config.batch,
            batch=config.batch,
            n_self_pairs=config.n_self_pairs,
            self_pairs_until=config.stage_ends["reconstruct"] * config.batch,
        )
        frame_gap = config.frame_gap if config.uses_frame_pairs else None
        return cls(
            config.content,
            config.style,
            schedule,
            crop=config.crop,
            seed=config.seed,
            frame_gap=frame_gap,
            damage=config.damage,
        )

    def __len__(self) -> int:
        return self.schedule.length

    @property
    def counts(self) -> dict[str, int]:
        """Number of content and of style pictures."""
        return {"content": len(self.content), "style": len(self.style)}

    def __getitem__(self, index: int) -> Sample:
        generator = seeded_generator(self.seed, index)
        notes: list[FileNote] = []
        is_self_pair = self.schedule.is_self_pair(index)
        if is_self_pair:
            picture = self._draw([*self.content, *self.style], generator, notes)
            content, style, target = reconstruction_pair(picture, self.crop, generator)
        else:
            content, target = self._draw_contents(generator, notes)
            style = random_crop(self._draw(self.style, generator, notes), self.crop, (1.0, 2.5), generator)
            if uniform(generator) < 0.3:
                style = color_jitter(style, generator)
        return Sample(content, style, target, is_self_pair, tuple(notes))

    def _draw_contents(self, generator: torch.Generator, notes: list[FileNote]) -> tuple[Tensor, Tensor]:
        """Crops of a content and of the frame after it; without frames the same crop twice."""
        if self.frame_gap:
            first, second = self._read(lambda: random_choice(self.frame_pairs, generator), notes)
            frames = [first, second if second.size == first.size else second.resize(first.size)]
            first_crop, second_crop = paired_random_crop(frames, self.crop, (1.0, 2.0), generator)
            return first_crop, second_crop
        picture = self._draw(self.content, generator, notes)
        if self.frame_gap == 0:
            return synthetic_motion_pair(picture, self.crop, (1.0, 2.0), generator)
        content = random_crop(picture, self.crop, (1.0, 2.0), generator)
        if self.damage and uniform(generator) < self.damage:
            content = damaged(content, generator)
        return content, content

    def _draw(self, paths: Sequence[Picture], generator: torch.Generator, notes: list[FileNote]) -> Image.Image:
        """A random readable picture; what there is to say about files is appended to `notes`."""
        return self._read(lambda: [random_choice(paths, generator)], notes)[0]

    def _read(self, choose: Callable[[], Sequence[Picture]], notes: list[FileNote]) -> list[Image.Image]:
        """Pictures of the first choice that can be read completely.

        Raises:
            DataError: MAX_CONSECUTIVE_FAILURES choices cannot be read.
        """
        reason = ""
        for _ in range(MAX_CONSECUTIVE_FAILURES):
            pictures = []
            for path in choose():
                try:
                    with collected_remarks() as remarks:
                        pictures.append(read_picture(path, self.crop))
                except Exception as error:  # decoders raise anything on damaged data; one file must not end a long run
                    reason = (" ".join(str(error).split()) or type(error).__name__).removeprefix(f"{path} ")
                    notes.append(FileNote(str(path), reason, is_unreadable=True))
                    break
                notes += remarks
            else:
                return pictures
        raise DataError(
            f"{MAX_CONSECUTIVE_FAILURES} pictures in a row cannot be read, the last is {path}: it {reason} "
            "Check the training folders."
        )


def seeded_generator(seed: int, index: int) -> torch.Generator:
    """The random generator of one item or step.

    The generator of torch on the CPU uses 32 bits of its seed; the multiplier places runs of different seeds far apart.
    """
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + index) % 2**32)


def read_picture(picture: Picture, crop: int) -> Image.Image:
    """Read a picture as RGB, on white where it is transparent.

    A JPEG is decoded at a reduced scale, of at least four crops on its short side. Pictures are never enlarged. The
    EXIF orientation of plain pictures is ignored, as training mirrors and rotates anyway.
    """
    image = decode(open_picture(picture), str(picture), draft_side=4 * crop)
    if image.mode in ("1", "L", "RGB", "CMYK", "YCbCr") and not image.has_transparency_data:
        return image.convert("RGB")
    return to_pil(from_pil(image, str(picture)))  # 16 bits, a palette, transparency


def random_choice(items: Sequence[T], generator: torch.Generator) -> T:
    """One item, each with the same probability."""
    return items[int(torch.randint(len(items), (), generator=generator))]


def uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """A random number from [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float32))


Scale = tuple[float, float]
"""Smallest and largest side of the square that is cut, as a multiple of the side it is resized to."""


def random_crop(picture: Image.Image, crop: int, scale: Scale, generator: torch.Generator) -> Tensor:
    """Cut a square of `scale` times `crop` pixels, or less from a smaller picture, and mirror it at random.

    Returns:
        (3, crop, crop) in [0, 1].
    """
    return paired_random_crop([picture], crop, scale, generator)[0]


def paired_random_crop(
    pictures: Sequence[Image.Image], crop: int, scale: Scale, generator: torch.Generator
) -> list[Tensor]:
    """`random_crop` of several pictures of equal size, at the same place in each."""
    size = pictures[0].size
    side = min(uniform(generator, *scale) * crop, *size)
    left, top = (uniform(generator, 0, length - side) for length in size)
    squares = [_cut(picture, left, top, side, crop) for picture in pictures]
    return [square.flip(-1) for square in squares] if uniform(generator) < 0.5 else squares


def synthetic_motion_pair(
    picture: Image.Image, crop: int, scale: Scale, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Two views of a still picture, from a camera that moves by up to 4 % of the crop and zooms by up to 3 %."""
    max_sides = [0.94 * length for length in picture.size]
    side = min(uniform(generator, *scale) * crop, *max_sides)
    corner = [uniform(generator, 0, length - side) for length in picture.size]
    zoomed = side * uniform(generator, 0.97, 1.03)
    moved = [
        min(max(start + (side - zoomed) / 2 + side * uniform(generator, -0.04, 0.04), 0.0), length - zoomed)
        for start, length in zip(corner, picture.size, strict=True)
    ]
    first, second = _cut(picture, corner[0], corner[1], side, crop), _cut(picture, moved[0], moved[1], zoomed, crop)
    return (first.flip(-1), second.flip(-1)) if uniform(generator) < 0.5 else (first, second)


def reconstruction_pair(picture: Image.Image, crop: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Content, style and target of a self pair, see `TrainingPairs`; (3, crop, crop) each, in [0, 1]."""
    side = min(uniform(generator, 1.0, 1.6) * crop, *picture.size)
    left, top = (uniform(generator, 0, length - side) for length in picture.size)
    target = _cut(picture, left, top, side, crop)
    style_side = min(uniform(generator, 1.0, 1.4) * side, *picture.size)
    style_left, style_top = (
        min(max(start - uniform(generator, 0, style_side - side), 0.0), length - style_side)
        for start, length in zip((left, top), picture.size, strict=True)
    )
    style = _cut(picture, style_left, style_top, style_side, crop)
    style = torch.rot90(style, int(torch.randint(4, (), generator=generator)), dims=(-2, -1))
    if uniform(generator) < 0.5:
        style = style.flip(-1)
    return color_jitter(target, generator), style, target


def color_jitter(image: Tensor, generator: torch.Generator) -> Tensor:
    """Mix the channels of an image at random and change its contrast, brightness and gamma; its structure is preserved.

    Args:
        image: (3, H, W) in [0, 1].

    Returns:
        (3, H, W) in [0, 1].
    """
    order = torch.randperm(3, generator=generator) if uniform(generator) < 0.3 else torch.arange(3)
    mixing = torch.eye(3, dtype=torch.float32)[order] + 0.2 * torch.randn(
        3, 3, generator=generator, dtype=torch.float32
    )
    mixed = torch.einsum("oc,chw->ohw", mixing / mixing.sum(dim=1, keepdim=True).abs().clamp_min(0.5), image)
    contrast = uniform(generator, 0.6, 1.3)
    shift = 0.15 * torch.randn(3, 1, 1, generator=generator, dtype=torch.float32)
    jittered = ((mixed - 0.5) * contrast + 0.5 + shift).clamp(0, 1)
    return jittered ** uniform(generator, 0.7, 1.4)


def damaged(image: Tensor, generator: torch.Generator) -> Tensor:
    """The image after JPEG compression of quality 25 to 80, or with noise of deviation up to 0.05, at equal odds.

    Args:
        image: (3, H, W) in [0, 1].

    Returns:
        (3, H, W) in [0, 1].
    """
    if uniform(generator) < 0.5:
        file = BytesIO()
        to_pil(image[None]).save(file, "JPEG", quality=int(uniform(generator, 25, 80)))
        return from_pil(Image.open(file))[0]
    noise = torch.randn(image.shape, generator=generator, dtype=torch.float32)
    return (image + uniform(generator, 0, 0.05) * noise).clamp(0, 1)


def _cut(picture: Image.Image, left: float, top: float, side: float, crop: int) -> Tensor:
    """A square of a picture, resized to (3, crop, crop) in [0, 1]."""
    box = (left, top, min(left + side, picture.width), min(top + side, picture.height))
    square = picture.resize((crop, crop), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255
