"""Painted frames that keep the look of the frame before, where the clip stands still or can be followed.

Letters: H W pixels. Pictures are RGB in [0, 1]; a flow is (1, 2, H, W) in pixels, x first: where each place was before.
Source: Ruder et al. 2016, "Artistic Style Transfer for Videos", warp the last result to where things are now.
Differs from the paper: blended after painting instead of painted from there; what was hidden is told by colour alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..io.video_reader import MISSING

DEFAULT_STEADY = 0.7
"""Measured (docs/performance.md): flicker falls to half or less, and no trace shows behind what moves."""
FLOW_SIDE = 480
"""The flow is searched at this short side where the clip's is longer: a tenth of the time at full HD."""
SMALLEST_FLOW = 32
"""OpenCV's search fails on pictures of one patch."""
SIGMA = 0.06
"""Difference of the contents, of 1, at which e^-1 of the weight is left; a camera's noise is a fifth of it."""
NEAR, HALO = 5, 9
"""Sides of the windows that differences are averaged over, and spread over: paint reaches beyond what moves."""
CUT = 0.06
"""Half of the pixels differ by more: another shot. Within shots it was .006 at the most, at cuts .11 at the least."""
FINE, AROUND = 3, 19
"""Sides of the windows that tell fine detail from the rest, and that its strength is averaged over."""
LARGEST_GAIN = 1.5
"""Of fine detail."""


class TemporalSmoother:
    """Takes the frames of a clip in order, and holds one of them.

    Each result is, place by place, a mix of the frame as it was painted and the result before, moved along with the
    content. The more the moved content differs from the present one, the less of it; nothing after a cut, and nothing
    from beyond the border. Mixing and moving blur, so fine detail is raised to the strength that the painted frame
    has there.

    Args:
        steady: 0 to 1, the share of the result before where the content agrees; 0 gives the painted frames themselves.
    """

    def __init__(self, steady: float = DEFAULT_STEADY) -> None:
        if not 0 <= steady <= 1:
            raise ValueError(f"steady is {steady}; it must be between 0 and 1")
        self.steady = steady
        self.before: tuple[Tensor, Tensor] | None = None
        if steady:
            open_cv()  # a missing package is told before the work

    def __call__(self, content: Tensor, painted: Tensor) -> Tensor:
        """content, painted: (1, 3, H, W) in [0, 1], on one device -> (1, 3, H, W) in [0, 1]."""
        if not self.steady:
            return painted
        if content.shape != painted.shape or content.shape[:2] != (1, 3):
            shapes = f"content is {tuple(content.shape)}, painted {tuple(painted.shape)}"
            raise ValueError(f"{shapes}; one frame of one size, (1, 3, H, W), is needed.")
        result = painted
        if self.before is not None and self.before[0].shape == content.shape:
            result = self._follow(content, painted, *self.before)
        self.before = content, result
        return result

    def _follow(self, content: Tensor, painted: Tensor, old_content: Tensor, old_result: Tensor) -> Tensor:
        flow = optical_flow(content, old_content)
        moved, inside = warp(torch.cat([old_content, old_result], dim=1), flow)
        difference = (content - moved[:, :3]).abs().mean(dim=1, keepdim=True)
        if float(difference.median()) > CUT:
            return painted
        weight = self.steady * occlusion_weight(difference) * inside
        mixed = weight * moved[:, 3:] + (1 - weight) * painted
        # At most 1 / steady: detail that is handed on from frame to frame must not grow.
        return match_sharpness(mixed, painted, largest=min(LARGEST_GAIN, 1 / self.steady))


def occlusion_weight(difference: Tensor) -> Tensor:
    """(1, 1, H, W) difference of the contents -> how far they are the same, 1 to 0."""
    near = _box(difference, NEAR)
    spread = near
    for side in ((HALO, 1), (1, HALO)):
        spread = functional.max_pool2d(spread, side, stride=1, padding=(side[0] // 2, side[1] // 2))
    return torch.exp(-((_box(spread, NEAR) / SIGMA) ** 2))


def match_sharpness(image: Tensor, model: Tensor, largest: float) -> Tensor:
    """The image, its fine detail raised to the model's strength around each place, `largest` times at the most."""
    smooth = _box(image, FINE)
    fine, wanted = image - smooth, model - _box(model, FINE)
    energy, aim = (_box(one.square().mean(dim=1, keepdim=True), AROUND) for one in (fine, wanted))
    gain = (aim / (energy + 1e-7)).sqrt().clamp(1, max(1.0, largest))
    return (smooth + gain * fine).clamp(0, 1)


def _box(image: Tensor, side: int) -> Tensor:
    """Mean over side x side pixels, the border repeated; rows after columns, which is less work."""
    padded = functional.pad(image, (side // 2,) * 4, mode="replicate")
    return functional.avg_pool2d(functional.avg_pool2d(padded, (side, 1), stride=1), (1, side), stride=1)


def optical_flow(present: Tensor, before: Tensor) -> Tensor:
    """Where each place of `present` was in `before`. Both (1, 3, H, W) in [0, 1] -> (1, 2, H, W), on their device.

    Source: Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search", as in OpenCV.
    """
    cv2 = open_cv()
    height, width = present.shape[-2:]
    scale = max(min(1.0, FLOW_SIDE / min(height, width)), SMALLEST_FLOW / min(height, width))
    size = round(height * scale), round(width * scale)
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found = search.calc(grey_bytes(present, size), grey_bytes(before, size), None)
    flow = rearrange(torch.from_numpy(found).to(present.device), "h w xy -> 1 xy h w")
    if size != (height, width):
        flow = functional.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
    return flow * flow.new_tensor([width / size[1], height / size[0]])[:, None, None]


def grey_bytes(image: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(1, 3, H, W) in [0, 1] -> (height, width) of `size`, luma in 8 bits."""
    luma = (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
    if luma.shape[-2:] != size:
        luma = functional.interpolate(luma, size, mode="bilinear", antialias=True, align_corners=False)
    grey: NDArray[np.uint8] = (luma[0, 0].clamp(0, 1) * 255 + 0.5).to("cpu", torch.uint8).numpy()
    return grey


def warp(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """The image moved along a flow, and where it comes from inside the frame (1) or not (0), (1, 1, H, W).

    Bicubic: bilinear blurs twice as much, from frame to frame anew.
    """
    height, width = image.shape[-2:]
    rows = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    columns = torch.arange(width, device=flow.device) + flow[:, 0]
    inside = (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)
    moved = functional.grid_sample(image, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return moved, inside[:, None].to(image.dtype)


def open_cv() -> Any:  # noqa: ANN401 - imported late: it belongs to the extra [video]
    """The module cv2.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ValueError(MISSING) from error
    return cv2
