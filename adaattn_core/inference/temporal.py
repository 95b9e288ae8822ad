"""Temporal smoothing of stylized video: each result is blended with the previous result, warped along the optical flow.

Letters: H W pixels. Pictures are RGB in [0, 1]. An optical flow is (1, 2, H, W) in pixels, x first: it points from each
pixel of the present frame to its position in the previous frame.
Source: Ruder et al. 2016, "Artistic Style Transfer for Videos": the previous result is warped to the present frame.
Differs from the paper: the frames are blended after stylization, instead of starting an optimisation from the warped
result; occlusions are detected by the colour difference of the contents alone.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..io.video_reader import video_package
from ..ops.layout import pictures_in_words

DEFAULT_STEADY = 0.7
"""Measured (docs/notes/performance-diary.md): it halves the flicker, and moving objects leave no visible trail."""
FLOW_SIDE = 480
"""Larger frames are reduced to this short side for the flow search, which takes a tenth of the time at full HD."""
SMALLEST_FLOW = 32
"""Smaller frames are enlarged to this short side: OpenCV's search fails on pictures of a single patch."""
SIGMA = 0.06
"""Difference of the contents at which the weight falls to 1/e; the noise of a camera is a fifth of it."""
MEAN_SIDE, DILATION_SIDE = 5, 9
"""Sides of the windows over which differences are averaged and dilated: brushwork extends beyond a moving object."""
CUT_DIFFERENCE = 0.06
"""A larger median difference is a cut. It was at most 0.006 within shots and at least 0.11 at cuts."""
DETAIL_SIDE, ENERGY_SIDE = 3, 19
"""Sides of the windows that separate fine detail from the rest, and over which its energy is averaged."""
LARGEST_GAIN = 1.5
"""Largest amplification of fine detail."""


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
        result = stylized
        if self.previous is not None and self.previous[0].shape == content.shape:
            result = self._blend(content, stylized, *self.previous)
        self.previous = content, result
        return result

    def _blend(self, content: Tensor, stylized: Tensor, old_content: Tensor, old_result: Tensor) -> Tensor:
        flow = optical_flow(content, old_content)
        warped, inside = warp(torch.cat([old_content, old_result], dim=1), flow)
        difference = (content - warped[:, :3]).abs().mean(dim=1, keepdim=True)
        if float(difference.median()) > CUT_DIFFERENCE:
            return stylized
        weight = self.steady * occlusion_weight(difference) * inside
        blended = weight * warped[:, 3:] + (1 - weight) * stylized
        # The gain is at most 1 / steady, so that detail that passes from frame to frame cannot grow.
        return match_sharpness(blended, stylized, largest=min(LARGEST_GAIN, 1 / self.steady))


def occlusion_weight(difference: Tensor) -> Tensor:
    """Weight from 1 (the contents agree) to 0 (occlusion) for a (1, 1, H, W) difference of the contents."""
    dilated = _box_mean(difference, MEAN_SIDE)
    for side in ((DILATION_SIDE, 1), (1, DILATION_SIDE)):
        dilated = functional.max_pool2d(dilated, side, stride=1, padding=(side[0] // 2, side[1] // 2))
    return torch.exp(-((_box_mean(dilated, MEAN_SIDE) / SIGMA) ** 2))


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
