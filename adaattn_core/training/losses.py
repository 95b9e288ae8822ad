"""What training minimises, on features of a VGG-19 that is never trained.

Source: Liu et al., ICCV 2021, section 3.4. Differs from the paper: every term is a mean over elements, as in the
published code, whose loss weights 10 and 3 mean that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..models.attention import stacked_key
from ..models.encoder import LEVELS, Features, ReflectConv2d, VGGEncoder
from ..ops.color import color_distance
from ..ops.moments import Similarity, attention_moments
from ..ops.statistics import VARIANCE_EPSILON, channel_mean_std, normalize_channels, to_float32
from ..runtime.device import without_autocast

PUBLISHED_LEVELS = LEVELS[1:]
"""relu2_1 to relu5_1: the published code's levels for every loss. The paper's local loss starts at relu3_1."""
MESH_PERIOD = 4
"""Pixels to a position of relu3_1, the finest level with attention."""
FAINTEST_STEP = 1e-4
"""Mean difference of neighbouring pixels under which a picture counts as empty: there is no mesh to see."""
FLAT = 0.01
"""Mean 1 - cos under which a frame counts as flat. A new model's grey pictures have less, all of it rounding, and a
division by it would make that rounding the gradient."""


def _mean_std(features: Tensor) -> tuple[Tensor, Tensor]:
    """`channel_mean_std`; of bfloat16 features by matrix products, as fast as the convolutions that made them.

    The products add up in float32. Deviations from the mean are rounded to half precision, which adds 0.4 % of noise
    to each of the thousands that are averaged.
    """
    if features.dtype != torch.bfloat16:  # float16 ends at 65504, and the sums would not
        return channel_mean_std(features)
    values = rearrange(features, "b c h w -> b (h w) c")
    count = values.shape[1]
    ones = values.new_ones(len(values), 1, count)
    mean = torch.bmm(ones, values).float() / count
    square = torch.bmm(ones, (values - mean.to(values.dtype)).square()).float() / max(1, count - 1)
    as_image = "b 1 c -> b c 1 1"
    return rearrange(mean, as_image), rearrange((square + VARIANCE_EPSILON).sqrt(), as_image)


def content_loss(stylized: Features, content: Features, levels: Sequence[str] = PUBLISHED_LEVELS) -> Tensor:
    """Squared distance of normalised features: what is where, whatever its colours. 0 for equal pictures."""
    return _sum(F.mse_loss(normalize_channels(stylized[x]), normalize_channels(content[x])) for x in levels)


def global_style_loss(stylized: Features, style: Features, levels: Sequence[str] = PUBLISHED_LEVELS) -> Tensor:
    """Squared distance of each channel's mean and standard deviation. 0 for equal pictures."""
    terms = []
    for level in levels:
        mean, std = _mean_std(stylized[level])
        style_mean, style_std = _mean_std(style[level])
        terms.append(F.mse_loss(mean, style_mean) + F.mse_loss(std, style_std))
    return _sum(terms)


def relative_style_loss(stylized: Features, style: Features, levels: Sequence[str] = PUBLISHED_LEVELS) -> Tensor:
    """Distance of all of a level's means and standard deviations together, relative to their own length.

    Differs from the paper: not squared, and relative, so that no style outweighs the others: squared distances of a
    colourful style are ten times those of a quiet one. This is how style distance is measured in evaluations.
    """
    terms = []
    for level in levels:
        found, wanted = (torch.cat(_mean_std(features[level]), dim=1).flatten(1) for features in (stylized, style))
        terms.append(((found - wanted).norm(dim=1) / wanted.norm(dim=1).clamp_min(VARIANCE_EPSILON)).mean())
    return _sum(terms)


def local_feature_loss(
    stylized: Features,
    content: Features,
    style: Features,
    levels: Sequence[str] = PUBLISHED_LEVELS,
    samples: int | None = None,
    generator: torch.Generator | None = None,
    similarity: Similarity = "softmax",
) -> Tensor:
    """Squared distance to `local_target` at each level."""
    return _sum(
        F.mse_loss(to_float32(stylized[x]), local_target(content, style, x, samples, generator, similarity))
        for x in levels
    )


@torch.no_grad()
def local_target(
    content: Features,
    style: Features,
    level: str,
    samples: int | None = None,
    generator: torch.Generator | None = None,
    similarity: Similarity = "softmax",
) -> Tensor:
    """AdaAttN without learnable layers: VGG features of the content, renormalised by what attention finds.

    Args:
        content, style: VGG features down to `level`, (B, C, H, W) each.
        samples: look at that many random style positions only: an approximation, for speed; None looks at all.
        generator: source of that choice; required with `samples`.
        similarity: how it weighs style positions: as the model that is trained does.

    Returns:
        (B, C, H, W) float32, a constant for the gradient.
    """
    height = content[level].shape[-2]
    query, key = (rearrange(stacked_key(features, level), "b c h w -> b (h w) c") for features in (content, style))
    value = rearrange(style[level], "b c h w -> b (h w) c")
    if samples is not None and samples < key.shape[1]:
        if generator is None:
            raise ValueError("a sampled local target needs a torch.Generator")
        chosen = torch.randperm(key.shape[1], generator=generator)[:samples].to(key.device)
        key, value = key[:, chosen], value[:, chosen]
    moments = attention_moments(query, key, value, similarity=similarity)
    mean, std = (rearrange(x, "b (h w) c -> b c h w", h=height) for x in moments)
    return std * normalize_channels(content[level]) + mean


def image_similarity_loss(
    stylized: tuple[Features, Features],
    content: tuple[Features, Features],
    levels: Sequence[str],
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Whether what is alike in two frames is still alike when both are stylised: what keeps a video from flickering.

    D_ij = 1 - cos of position i of the first frame and j of the second; each column, divided by its sum, says how
    unlike j the positions of the first frame are. Columns of the stylised frames are compared with the contents'.

    Differs from the paper: summed over i and averaged over j, where the paper averages over both. A level then counts
    the same whatever its size, which lies between 0 and 2. And of many positions, `samples` random ones are looked at.

    Args:
        stylized, content: features of the first and of the second frames, (B, C, H, W) each.
        samples: positions of each frame, at most; the same in content and stylised.
        generator: source of that choice.
    """
    terms = []
    for level in levels:
        chosen = []
        for frame in content:
            positions = frame[level].shape[-2] * frame[level].shape[-1]
            chosen.append(torch.randperm(positions, generator=generator)[:samples].to(frame[level].device))
        wanted, found = (cosine_distance_matrix(frames, level, chosen) for frames in (content, stylized))
        terms.append((found - wanted).abs().sum(dim=1).mean())
    return _sum(terms)


def cosine_distance_matrix(frames: tuple[Features, Features], level: str, chosen: Sequence[Tensor]) -> Tensor:
    """(B, positions of the first frame, of the second): D of `image_similarity_loss`, columns summing to 1."""
    first, second = (
        F.normalize(to_float32(features[level]).flatten(2)[:, :, positions], dim=1)
        for features, positions in zip(frames, chosen, strict=True)
    )
    with without_autocast(first.device.type):
        distance = 1 - torch.bmm(first.transpose(1, 2), second)
    return distance / distance.sum(dim=1, keepdim=True).clamp_min(FLAT * distance.shape[1])


def identity_loss(picture: Tensor, original: Tensor, found: Features, wanted: Features) -> Tensor:
    """Distance of a picture painted in itself to what it was: in pixels, and in the features of every level given.

    Source: Park & Lee, "SANet", CVPR 2019: both identity losses, in their ratio of 50 to 1. Differs from theirs:
    squares are averaged, as in all losses here, instead of summed under a root.
    """
    return 50 * F.mse_loss(picture, original) + _sum(
        F.mse_loss(to_float32(found[level]), to_float32(wanted[level])) for level in found
    )


def color_loss(picture: Tensor, style: Tensor) -> Tensor:
    """How far the palettes lie apart (metrics.color_distance), wherever the colours stand: 1 is black against white."""
    with without_autocast(picture.device.type):
        return color_distance(picture.float(), style.float()).mean() / 100


def checkerboard_loss(picture: Tensor, period: int = MESH_PERIOD) -> Tensor:
    """How unevenly detail is spread over columns and rows of a grid: what shows as a faint mesh in flat areas.

    Differences between neighbouring pixels, averaged over the pictures, for each of the `period` places that a column
    has in the grid; then how far these lie from their mean, relative to it, as a root mean square, and the same for
    rows. 0 without a mesh; about 0.06 for photographs of a few hundred pixels, by chance and by JPEG's blocks.

    Args:
        picture: (B, 3, H, W), cut along the grid; H and W above `period`.
        period: of the grid in pixels.
    """
    return _sum(_unevenness(x, period) for x in (picture, picture.transpose(-1, -2)))


def _unevenness(picture: Tensor, period: int) -> Tensor:
    steps = (picture[..., 1:] - picture[..., :-1]).abs().mean(dim=(0, 1, 2))
    whole = len(steps) // period * period
    places = rearrange(steps[:whole], "(cells place) -> cells place", place=period).mean(dim=0)
    mean = places.mean()
    uneven = ((places - mean) / mean.clamp_min(FAINTEST_STEP)).square().mean()
    return uneven.clamp_min(torch.finfo(uneven.dtype).tiny).sqrt()  # the root of 0 has no slope


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()


@torch.no_grad()
def normalize_activations(encoder: VGGEncoder, images: Tensor, floor: float = 0.2) -> None:
    """Rescale an encoder, in place, so that each channel's mean activation over some pictures is 1.

    Levels and channels then weigh alike in a loss. The network computes the same function up to these scales, since
    ReLU and max-pooling commute with them.

    Args:
        encoder: VGG-19 from any source.
        images: (B, 3, H, W) in [0, 1], a few dozen training pictures.
        floor: channels quieter than this share of their layer's mean activation are scaled as if they were at it;
            without a floor nearly dead channels are blown up and dominate every loss. Channels that are silent
            on all pictures, in a layer without a floor or silent altogether, stay as they are.
    """
    x = encoder.conv0(images)
    previous = x.new_ones(())
    for name, conv in encoder.layers.items():
        assert isinstance(conv, ReflectConv2d) and conv.bias is not None
        if name.endswith("_1") and name != "conv1_1":
            x = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)
        conv.weight.mul_(previous.reshape(1, -1, 1, 1))
        x = torch.relu(conv(x))
        activation = x.mean(dim=(0, 2, 3))
        scale = activation.clamp_min(floor * float(activation.mean()))
        scale = torch.where(scale > 0, scale, 1.0)
        conv.weight.div_(scale.reshape(-1, 1, 1, 1))
        conv.bias.div_(scale)
        x = x / scale.reshape(1, -1, 1, 1)
        previous = scale
