"""Colour: preserving the content's colours, and the distance between two palettes."""

from __future__ import annotations

import math

import torch
from einops import einsum, reduce
from torch import Tensor

from .layout import pictures_in_words


def keep_color(stylized: Tensor, content: Tensor) -> Tensor:
    """The content's colours with the stylized picture's luminance (luma Y' with BT.709 weights, as sRGB uses).

    Chroma is R'G'B' - Y', as in YCbCr before scaling. Where the sum would leave [0, 1] the chroma is reduced towards
    grey, which preserves luminance and hue exactly.

    Source: luminance-only transfer of Gatys et al. 2017, "Controlling Perceptual Factors in Neural Style Transfer".
    Differs from the paper: BT.709 instead of YIQ weights, reduced chroma instead of clipping.

    Args:
        stylized, content: (B, 3, H, W) in [0, 1], of equal size.

    Returns:
        (B, 3, H, W) in [0, 1].

    Raises:
        ValueError: different sizes.
    """
    if stylized.shape[-3:] != content.shape[-3:]:
        came = f"stylized is {pictures_in_words(stylized.shape)}, content is {pictures_in_words(content.shape)}"
        raise ValueError(f"{came}; one size is needed. Resize the content first.")
    weights = content.new_tensor([0.2126, 0.7152, 0.0722])[:, None, None]
    luminance = (stylized * weights).sum(dim=1, keepdim=True)
    chroma = content - (content * weights).sum(dim=1, keepdim=True)
    headroom = torch.where(chroma > 0, 1 - luminance, luminance)
    scale = (headroom / chroma.abs().clamp_min(1e-6)).amin(dim=1, keepdim=True).clamp(0, 1)
    return (luminance + scale * chroma).clamp(0, 1)


COLOR_DIRECTIONS, COLOR_QUANTILES, COLOR_PIXELS = 32, 256, 2**16
_RGB_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_D65 = (0.95047, 1.0, 1.08883)


def color_distance(stylized: Tensor, style: Tensor) -> Tensor:
    """Distance between two palettes in CIELAB units (Delta E), regardless of where the colours are.

    Sliced Wasserstein-1 distance of the two sets of pixels: both are projected on directions spread evenly over the
    sphere, sorted, and compared quantile by quantile. Twice the mean over directions, which gives two pictures of one
    colour each the Delta E (CIE 1976) of their colours. 2 is just noticeable; black and white are 100 apart.

    Args:
        stylized, style: (B, 3, H, W) in [0, 1]; sizes may differ.

    Returns:
        (B,), >= 0.
    """
    return color_quantile_distance(color_quantiles(stylized), color_quantiles(style))


def color_quantiles(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, directions, quantiles), the data of `color_distance`; large pictures are subsampled."""
    stride = math.ceil(math.sqrt(images.shape[-2] * images.shape[-1] / COLOR_PIXELS))
    images, directions = images[..., ::stride, ::stride], _sphere(COLOR_DIRECTIONS).to(images.device)
    projected = einsum(lab(images), directions, "b c h w, d c -> b d h w").flatten(2).sort(dim=2).values
    ranks = (
        torch.arange(COLOR_QUANTILES, dtype=torch.float32, device=images.device) + 0.5
    ) / COLOR_QUANTILES * projected.shape[2] - 0.5
    low = ranks.floor().clamp(0, projected.shape[2] - 1).long()
    high = (low + 1).clamp_max(projected.shape[2] - 1)
    return torch.lerp(
        projected[..., low], projected[..., high], (ranks - low).clamp(0, 1).expand_as(projected[..., low])
    )


def color_quantile_distance(stylized: Tensor, style: Tensor) -> Tensor:
    """`color_distance` from two results of `color_quantiles`."""
    return 2 * reduce((stylized - style).abs(), "b directions quantiles -> b", "mean")


def lab(images: Tensor) -> Tensor:
    """sRGB in [0, 1] -> CIELAB under D65: L in 0..100, a and b about -100..100. Source: IEC 61966-2-1 and CIE 15."""
    rgb = images.float().clamp(0, 1)
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = einsum(linear, rgb.new_tensor(_RGB_TO_XYZ), "b c h w, x c -> b x h w") / rgb.new_tensor(_D65)[:, None, None]
    delta = 6 / 29
    compressed = torch.where(xyz > delta**3, xyz.clamp_min(delta**3) ** (1 / 3), xyz / (3 * delta**2) + 4 / 29)
    x, y, z = compressed.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _sphere(count: int) -> Tensor:
    """(count, 3) unit vectors, evenly spread over the sphere: a Fibonacci spiral."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    height, angle = 1 - 2 * index / count, math.pi * (1 + math.sqrt(5)) * index
    radius = (1 - height**2).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=1).float()
