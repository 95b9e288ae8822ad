"""TODO"""

from __future__ import annotations

import math

import torch
from einops import einsum, reduce
from torch import Tensor


def keep_color(stylized: Tensor, content: Tensor) -> Tensor:
    """The content's colours at the stylized picture's luminance (luma Y', BT.709 weights, which fit sRGB).

    All are (B, 3, H, W) in [0, 1], of one size. Colour is R'G'B' - Y', YCbCr's chroma before scaling; where it would
    leave [0, 1] it shrinks towards grey, so that luminance and hue stay exact.
    Source: luminance-only transfer of Gatys et al. 2017, "Controlling Perceptual Factors in Neural Style Transfer".
    Differs from the paper: BT.709 in place of YIQ's weights, shrinking in place of clipping.
    """
    if stylized.shape[-3:] != content.shape[-3:]:
        shapes = f"stylized is {tuple(stylized.shape)}, content is {tuple(content.shape)}"
        raise ValueError(f"{shapes}; one size is needed. Resize the content first.")
    weights = content.new_tensor([0.2126, 0.7152, 0.0722])[:, None, None]
    luminance = (stylized * weights).sum(dim=1, keepdim=True)
    chroma = content - (content * weights).sum(dim=1, keepdim=True)
    room = torch.where(chroma > 0, 1 - luminance, luminance)
    shrink = (room / chroma.abs().clamp_min(1e-6)).amin(dim=1, keepdim=True).clamp(0, 1)
    return (luminance + shrink * chroma).clamp(0, 1)


COLOR_DIRECTIONS, COLOR_QUANTILES, COLOR_PIXELS = 32, 256, 2**16
_XYZ_OF_RGB = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_D65 = (0.95047, 1.0, 1.08883)


def color_distance(stylized: Tensor, style: Tensor) -> Tensor:
    """How far apart the palettes lie, in CIELAB units (Delta E): 0 for equal ones, wherever the colours stand.

    Sliced Wasserstein-1 distance of the two clouds of pixels: both are projected on directions spread evenly over the
    sphere, sorted, and compared quantile by quantile. Twice the mean over directions, so that two flat pictures have
    their colours' Delta E (CIE 1976). A difference of 2 is just seen, black and white are 100 apart.
    The two pictures may differ in size.
    """
    return color_quantile_distance(color_quantiles(stylized), color_quantiles(style))


def color_quantiles(images: Tensor) -> Tensor:
    """What `color_distance` compares -> (B, directions, quantiles). Of many pixels, each n-th row and column counts."""
    stride = math.ceil(math.sqrt(images.shape[-2] * images.shape[-1] / COLOR_PIXELS))
    images, directions = images[..., ::stride, ::stride], _sphere(COLOR_DIRECTIONS).to(images.device)
    projected = einsum(lab(images), directions, "b c h w, d c -> b d h w").flatten(2).sort(dim=2).values
    ranks = (torch.arange(COLOR_QUANTILES, device=images.device) + 0.5) / COLOR_QUANTILES * projected.shape[2] - 0.5
    low = ranks.floor().clamp(0, projected.shape[2] - 1).long()
    high = (low + 1).clamp_max(projected.shape[2] - 1)
    return torch.lerp(
        projected[..., low], projected[..., high], (ranks - low).clamp(0, 1).expand_as(projected[..., low])
    )


def color_quantile_distance(stylized: Tensor, style: Tensor) -> Tensor:
    """(B, directions, quantiles) of both -> (B,); see `color_distance`."""
    return 2 * reduce((stylized - style).abs(), "b directions quantiles -> b", "mean")


def lab(images: Tensor) -> Tensor:
    """sRGB -> CIELAB under D65: L 0 to 100, a and b about -100 to 100. Source: IEC 61966-2-1 and CIE 15."""
    rgb = images.float().clamp(0, 1)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = einsum(linear, rgb.new_tensor(_XYZ_OF_RGB), "b c h w, x c -> b x h w") / rgb.new_tensor(_D65)[:, None, None]
    edge = 6 / 29
    bent = torch.where(xyz > edge**3, xyz.clamp_min(edge**3) ** (1 / 3), xyz / (3 * edge**2) + 4 / 29)
    x, y, z = bent.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _sphere(count: int) -> Tensor:
    """(count, 3) unit vectors spread evenly over the sphere: a Fibonacci spiral."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    height, angle = 1 - 2 * index / count, math.pi * (1 + math.sqrt(5)) * index
    radius = (1 - height**2).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=1).float()
