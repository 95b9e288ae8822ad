"""A clip as it comes into a node: ComfyUI's VIDEO, or the frames of an IMAGE in order, cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from comfy_api.latest import InputImpl, Types
from torch import Tensor

from .compat import call_supported
from .core import batching, layout, remarks
from .pictures import to_alpha, to_pictures


@dataclass(frozen=True)
class Clip:
    """Frames in order, and what of a VIDEO passes through a node untouched.

    frames: IMAGE. alpha: opacity of a VIDEO's frames, (B, H, W, 1). components: of that VIDEO; None for an IMAGE.
    bit_depth: of its colours.
    """

    frames: Tensor
    alpha: Tensor | None = None
    components: Any = None
    bit_depth: int = 8

    def __getitem__(self, items: slice) -> Tensor:
        """IMAGE with some of the frames, and their opacity as the fourth channel if they have one."""
        part = self.frames[items]
        return part if self.alpha is None else torch.cat([part[..., :3], self.alpha[items].to(part)], dim=-1)

    def chunks(self) -> Iterator[slice]:
        """The frames in order, as many at a time as are painted together."""
        size = batching.batch_size_for(self.frames.movedim(-1, 1))
        frames = len(self.frames)
        return (slice(start, min(start + size, frames)) for start in range(0, frames, size))

    def has_alpha(self) -> bool:
        """Whether a part of a frame is not opaque."""
        return any(to_alpha(self[items]) is not None for items in self.chunks())

    def as_video(self, image: Tensor, fps: float) -> Any:  # noqa: ANN401 (a VIDEO)
        """VIDEO of the painted frames with the sound, frame rate and bit depth of this one; an IMAGE gets `fps`."""
        if image.shape[-1] > 3:
            remarks.remark("", "the clip has transparent parts: the image output keeps them, the video output cannot")
        frames = image[..., :3]
        if self.components is None:
            components = Types.VideoComponents(images=frames, frame_rate=Fraction(fps).limit_denominator(1001))
        else:
            components = replace(self.components, images=frames)
        return call_supported(InputImpl.VideoFromComponents, components, bit_depth=self.bit_depth)


def to_clip(content: Any) -> Clip:  # noqa: ANN401 (IMAGE, a list of these, or VIDEO)
    """What is connected as the content.

    Raises:
        ValueError: no frames, no pictures, or frames of several sizes.
    """
    if not hasattr(content, "get_components"):
        frames = _joined(content) if isinstance(content, list | tuple) else content
        _check(frames)
        return Clip(frames)
    components = content.get_components()
    _check(components.images)
    if str(getattr(content, "get_color_space", str)()).startswith("HDR"):
        remarks.remark("", "the video is HDR, and its colours are painted as if they were SDR; convert it to SDR first")
    alpha = getattr(components, "alpha", None)
    return Clip(components.images, alpha, components, getattr(content, "get_bit_depth", lambda: 8)())


def _check(frames: Tensor) -> None:
    if not len(frames):
        raise ValueError("the clip has no frames; at least 1 is needed")
    to_pictures(frames[:1], "content")


def _joined(images: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Frames that came as a list, as one batch."""
    for number, image in enumerate(images, 1):
        if image.shape[1:] != images[0].shape[1:]:
            came, first = (layout.pictures_in_words(one.movedim(-1, -3).shape) for one in (image, images[0]))
            raise ValueError(
                f"the frames of a clip need one size: item {number} of the list is {came}, the first is {first}. "
                "Resize them first."
            )
    return torch.cat(list(images)) if images else torch.zeros(0, 0, 0, 3, dtype=torch.float32)
