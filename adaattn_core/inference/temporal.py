"""Clips: the frames stylized in order, each result blended with the previous one, warped along the optical flow.

Letters: H W pixels. Pictures are RGB in [0, 1]. An optical flow is (1, 2, H, W) in pixels, x first: it points from each
pixel of the present frame to its position in the previous frame.
Source: Ruder et al. 2016, "Artistic Style Transfer for Videos": the previous result is warped to the present frame.
Differs from the paper: the frames are blended after stylization, instead of starting an optimisation from the warped
result; occlusions are detected by the colour difference of the contents alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..io.video_reader import video_package
from ..models.fusion import StyleFeatures
from ..models.model import StyleTransferModel
from ..ops.layout import counted, pictures_in_words
from ..runtime.progress import ProgressCallback
from ..runtime.remarks import remark
from .stages import show_painted
from .stylize import stylize
from .validation import normalize_weights

DEFAULT_STEADY = 0.7
"""Measured (docs/notes/performance-diary.md): it halves the flicker, and moving objects leave no visible trail."""
FLOW_SIDE = 480
"""Larger frames are reduced to this short side for the flow search, which takes a tenth of the time at full HD."""
SMALLEST_FLOW = 32
"""Smaller frames are enlarged to this short side: OpenCV's search fails on pictures of a single patch."""
SIGMA = 0.06
"""Difference of the contents, above that of noise, at which the weight falls to 1/e."""
NOISE_MEDIANS = 3
"""Differences up to so many times the frame's median count as noise of the camera or the flow, not as occlusion."""
LARGEST_NOISE = 0.04
"""Largest difference that counts as noise: a cross-fade changes the whole frame by more."""
MEAN_SIDE, DILATION_SIDE = 5, 9
"""Sides of the windows over which differences are averaged and dilated: brushwork extends beyond a moving object."""
CUT_DIFFERENCE = 0.06
"""A larger median difference is a cut. It was at most 0.006 within shots and at least 0.11 at cuts."""
DETAIL_SIDE, ENERGY_SIDE = 3, 19
"""Sides of the windows that separate fine detail from the rest, and over which its energy is averaged."""
LARGEST_GAIN = 1.5
"""Largest amplification of fine detail."""
NAMED_CUTS = 8
"""Cuts whose frames a remark names."""


def can_steady() -> bool:
    """Whether OpenCV, which searches the optical flow, is installed."""
    try:
        video_package("cv2")
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class ClipOptions:
    """How a clip is stylized: `steady` as in `TemporalSmoother`, the others as in `stylize`."""

    style_weights: Sequence[float] | None = None
    strength: float = 1.0
    temperature: float = 1.0
    keep_color: bool = False
    steady: float = DEFAULT_STEADY


class ClipStylizer:
    """Stylizes the frames of one clip in the same styles: `adaattn video` and the node for clips both use it.

    `paint` treats each frame by itself and `smooth` follows the clip, so that they may run in two threads.

    Args:
        model: from `load_model`.
        styles: results of `encode_style`, each of one picture.
        options: how.

    Raises:
        ValueError: an option is out of range, or OpenCV is not installed and `steady` is above 0.
    """

    def __init__(
        self, model: StyleTransferModel, styles: Sequence[StyleFeatures], options: ClipOptions | None = None
    ) -> None:
        self.model, self.styles, self.options = model, styles, options or ClipOptions()
        normalize_weights(self.options.style_weights, len(styles))
        self.smoother = TemporalSmoother(self.options.steady)

    def paint(
        self, contents: Tensor, max_memory_gb: float | None = None, progress: ProgressCallback | None = None
    ) -> Tensor:
        """Each frame stylized independently: (B, 3, H, W) in [0, 1] -> the same."""
        how = self.options
        return stylize(
            self.model, contents, self.styles, style_weights=how.style_weights, strength=how.strength,
            temperature=how.temperature, keep_color=how.keep_color, max_memory_gb=max_memory_gb, progress=progress,
        )  # fmt: skip

    def smooth(self, content: Tensor, painted: Tensor, mask: Tensor | None = None) -> Tensor:
        """The next frame of the result, (1, 3, H, W): the content, exactly, at strength 0 and where the mask is 0.

        Args:
            content: the frame, (1, 3, H, W).
            painted: of `paint`.
            mask: (1, 1, H, W): where the result shows; None for everywhere.
        """
        smoothed = self.smoother(content, painted) if self.options.strength else painted
        return show_painted(smoothed, content, mask, keep_color=False)

    def remark_cuts(self) -> None:
        """Says at the end of a clip where nothing was blended, if there was a cut."""
        cuts, frames = self.smoother.cuts, self.smoother.frames
        if not cuts:
            return
        if len(cuts) == frames - 1 > 1:
            remark(
                "", f"all {frames} frames differ like shots of their own, so that none is steadied by the one before"
            )
            return
        named = ", ".join(map(str, cuts[:NAMED_CUTS])) + (", ..." if len(cuts) > NAMED_CUTS else "")
        remark("", f"{counted(len(cuts), 'cut')} found, before frame {named}: nothing is blended across a cut")


class TemporalSmoother:
    """Smooths the stylized frames of a clip, which are given in order; it keeps only the previous frame.

    Each result is a per-pixel blend of the stylized frame and the previous result, warped along the optical flow of the
    content. The weight of the previous result falls with the difference between the warped and the present content. It
    is 0 after a cut and where the flow points outside the frame. Blending and warping blur, so fine detail is amplified
    to its strength in the stylized frame.

    Args:
        steady: 0 to 1, the weight of the previous result where the contents agree; 0 returns the stylized frames.

    Raises:
        ValueError: `steady` is out of range, or OpenCV is not installed.
    """

    def __init__(self, steady: float = DEFAULT_STEADY) -> None:
        if not 0 <= steady <= 1:
            raise ValueError(f"steady is {steady}; it must be between 0 and 1")
        self.steady = steady
        self.previous: tuple[Tensor, Tensor] | None = None
        """Content and result of the previous frame."""
        self.frames = 0
        self.cuts: list[int] = []
        """Numbers of the frames, from 1, that show another shot, or have another size, than the frame before."""
        if steady:
            video_package("cv2")  # a missing package is reported before any work

    def __call__(self, content: Tensor, stylized: Tensor) -> Tensor:
        """The smoothed frame, (1, 3, H, W) in [0, 1].

        Args:
            content, stylized: (1, 3, H, W) in [0, 1], on one device.

        Raises:
            ValueError: the shapes differ, or there is more than one frame.
        """
        if not self.steady:
            return stylized
        if content.shape != stylized.shape or content.shape[:2] != (1, 3):
            came = f"content is {pictures_in_words(content.shape)}, stylized is {pictures_in_words(stylized.shape)}"
            raise ValueError(f"{came}; 1 picture with 3 channels is needed of both. Give one frame at a time.")
        self.frames += 1
        result = None if self.previous is None else self._blend(content, stylized, *self.previous)
        if result is None:
            self.cuts += [self.frames] if self.previous else []
            result = stylized
        self.previous = content, result
        return result

    def _blend(self, content: Tensor, stylized: Tensor, old_content: Tensor, old_result: Tensor) -> Tensor | None:
        """The blend with the previous result; None at a cut."""
        if old_content.shape != content.shape:
            return None
        flow = optical_flow(content, old_content)
        warped, inside = warp(torch.cat([old_content, old_result], dim=1), flow)
        difference = (content - warped[:, :3]).abs().mean(dim=1, keepdim=True)
        if float(difference.median()) > CUT_DIFFERENCE:
            return None
        weight = self.steady * occlusion_weight(difference) * inside
        blended = weight * warped[:, 3:] + (1 - weight) * stylized
        # The gain is at most 1 / steady, so that detail that passes from frame to frame cannot grow.
        return match_sharpness(blended, stylized, largest=min(LARGEST_GAIN, 1 / self.steady))


def occlusion_weight(difference: Tensor) -> Tensor:
    """Weight from 1 (the contents agree up to noise) to 0 (occlusion) for a (1, 1, H, W) difference of the contents."""
    dilated = _box_mean(difference, MEAN_SIDE)
    for side in ((DILATION_SIDE, 1), (1, DILATION_SIDE)):
        dilated = functional.max_pool2d(dilated, side, stride=1, padding=(side[0] // 2, side[1] // 2))
    dilated = _box_mean(dilated, MEAN_SIDE)
    noise = (NOISE_MEDIANS * dilated.median()).clamp_max(LARGEST_NOISE)
    return torch.exp(-(((dilated - noise).clamp_min(0) / SIGMA) ** 2))


def match_sharpness(image: Tensor, reference: Tensor, largest: float) -> Tensor:
    """Amplifies the fine detail of `image` to its local strength in `reference`, by a factor of 1 to `largest`.

    Args:
        image, reference: (1, 3, H, W) in [0, 1].
        largest: largest amplification.

    Returns:
        (1, 3, H, W) in [0, 1].
    """
    smooth = _box_mean(image, DETAIL_SIDE)
    detail, reference_detail = image - smooth, reference - _box_mean(reference, DETAIL_SIDE)
    energy, reference_energy = (
        _box_mean(values.square().mean(dim=1, keepdim=True), ENERGY_SIDE) for values in (detail, reference_detail)
    )
    gain = (reference_energy / (energy + 1e-7)).sqrt().clamp(1, max(1.0, largest))
    return (smooth + gain * detail).clamp(0, 1)


def _box_mean(image: Tensor, side: int) -> Tensor:
    """Mean over side x side pixels with a replicated border; separable: columns first, then rows."""
    padded = functional.pad(image, (side // 2,) * 4, mode="replicate")
    return functional.avg_pool2d(functional.avg_pool2d(padded, (side, 1), stride=1), (1, side), stride=1)


def optical_flow(present: Tensor, previous: Tensor) -> Tensor:
    """The displacement from each pixel of `present` to its position in `previous`, in pixels, x first.

    Args:
        present, previous: (1, 3, H, W) in [0, 1].

    Returns:
        (1, 2, H, W), on the device of `present`.

    Source: Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search", as in OpenCV.
    """
    cv2 = video_package("cv2")
    height, width = present.shape[-2:]
    scale = max(min(1.0, FLOW_SIDE / min(height, width)), SMALLEST_FLOW / min(height, width))
    size = round(height * scale), round(width * scale)
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    displacement = search.calc(grey_bytes(present, size), grey_bytes(previous, size), None)
    flow = rearrange(torch.from_numpy(displacement).to(present.device), "h w xy -> 1 xy h w")
    if size != (height, width):
        flow = functional.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
    return flow * flow.new_tensor([width / size[1], height / size[0]])[:, None, None]


def grey_bytes(image: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The luma of a picture, (1, 3, H, W) in [0, 1], resized to `size` (height, width), as uint8."""
    luma = (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
    if luma.shape[-2:] != size:
        luma = functional.interpolate(luma, size, mode="bilinear", antialias=True, align_corners=False)
    grey: NDArray[np.uint8] = (luma[0, 0].clamp(0, 1) * 255 + 0.5).to("cpu", torch.uint8).numpy()
    return grey


def warp(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """The image sampled where the flow points, by bicubic interpolation.

    Bilinear interpolation would blur twice as much, again in every frame.

    Args:
        image: (1, C, H, W).
        flow: (1, 2, H, W) in pixels, x first.

    Returns:
        The warped image, (1, C, H, W), and a mask (1, 1, H, W): 1 where the flow points inside the frame, else 0.
    """
    height, width = image.shape[-2:]
    rows = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    columns = torch.arange(width, device=flow.device) + flow[:, 0]
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)
    warped = functional.grid_sample(image, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return warped, inside[:, None].to(image.dtype)
