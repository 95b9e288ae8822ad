"""The losses of training, on features of a VGG-19 that is never trained.

Source: Liu et al., ICCV 2021, section 3.4. Differs from the paper: every term is a mean over elements, as in the
published code; the loss weights 10 and 3 apply to means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..models.attention import stacked_key
from ..models.encoder import LEVELS, Features, ReflectConv2d, VGGEncoder
from ..ops.color import color_distance
from ..ops.moments import AttentionKernel, Similarity, attention_moments
from ..ops.statistics import VARIANCE_EPSILON, channel_mean_std, normalize_channels, to_float32
from ..runtime.device import without_autocast

PUBLISHED_LEVELS = LEVELS[1:]
"""relu2_1 to relu5_1: the published code's levels for every loss. The paper's local loss starts at relu3_1."""
PATCH_LEVELS = LEVELS[2:4]
"""relu3_1 and relu4_1, the levels whose patches are as large as strokes."""
MESH_PERIOD = 4
"""Pixels per position of relu3_1, the finest level with attention."""
MIN_PIXEL_DIFFERENCE = 1e-4
"""Mean difference of neighbouring pixels below which a picture counts as uniform, without a visible checkerboard."""
MIN_TARGET_SIZE = 0.05
"""Smallest mean square that a relative distance is divided by; features of mean activation 1 have about 1 to 10."""
MIN_MEAN_DISTANCE = 0.01
"""Smallest mean of 1 - cos that a column of distances is divided by. The grey results of a new model have a smaller
mean, which is rounding error, and a division by it would turn this error into the gradient."""


def _mean_std(features: Tensor) -> tuple[Tensor, Tensor]:
    """`channel_mean_std`; for bfloat16 features by matrix products, which are as fast as convolutions.

    The products are summed in float32. Deviations from the mean are rounded to half precision, which adds 0.4 % of
    noise to each of the thousands of values that are averaged.
    """
    if features.dtype != torch.bfloat16:  # the sums would exceed 65504, the largest float16
        return channel_mean_std(features)
    values = rearrange(features, "b c h w -> b (h w) c")
    count = values.shape[1]
    ones = values.new_ones(len(values), 1, count)
    mean = torch.bmm(ones, values).float() / count
    variance = torch.bmm(ones, (values - mean.to(values.dtype)).square()).float() / max(1, count - 1)
    as_image = "b 1 c -> b c 1 1"
    return rearrange(mean, as_image), rearrange((variance + VARIANCE_EPSILON).sqrt(), as_image)


def content_loss(stylized: Features, content: Features, levels: Sequence[str] = PUBLISHED_LEVELS) -> Tensor:
    """Squared distance of normalised features, which contain structure but no colours. 0 for equal pictures."""
    return _sum(F.mse_loss(normalize_channels(stylized[x]), normalize_channels(content[x])) for x in levels)


def global_style_loss(stylized: Features, style: Features, levels: Sequence[str] = PUBLISHED_LEVELS) -> Tensor:
    """Squared distance of the mean and the standard deviation of each channel. 0 for equal pictures."""
    terms = []
    for level in levels:
        mean, std = _mean_std(stylized[level])
        style_mean, style_std = _mean_std(style[level])
        terms.append(F.mse_loss(mean, style_mean) + F.mse_loss(std, style_std))
    return _sum(terms)


def relative_style_loss(stylized: Features, style: Features, levels: Sequence[str] = PUBLISHED_LEVELS) -> Tensor:
    """Distance between the vectors of all means and standard deviations of a level, relative to the style's vector.

    Differs from the paper: relative and not squared, so that all styles have similar weight; squared distances of a
    colourful style are ten times those of a muted one. Evaluations measure the style distance in the same way.
    """
    terms = []
    for level in levels:
        statistics, target = (torch.cat(_mean_std(x[level]), dim=1).flatten(1) for x in (stylized, style))
        terms.append(((statistics - target).norm(dim=1) / target.norm(dim=1).clamp_min(VARIANCE_EPSILON)).mean())
    return _sum(terms)


def patch_loss(stylized: Features, style: Features, levels: Sequence[str] = PATCH_LEVELS) -> Tensor:
    """How much the patches of the pictures differ from the nearest patches of the styles, and the reverse.

    The patch distance of evaluations at several levels: channels normalised by the style's mean and standard
    deviation, 1 - cosine to the nearest position of the other picture, averaged over positions and both directions.
    Statistics do not see in which combinations the channels are active together; this does, and so it sees strokes.
    Source: Simakov et al., CVPR 2008, equation 1, with positions of a feature network as patches.

    Args:
        stylized, style: level -> (B, C, H, W); the sizes of the two may differ.
        levels: levels to average over.
    """
    terms = []
    for level in levels:
        mean, std = channel_mean_std(style[level])
        a, b = (F.normalize(((to_float32(x[level]) - mean) / std).flatten(2), dim=1) for x in (stylized, style))
        with without_autocast(a.device.type):
            cosines = torch.bmm(a.transpose(1, 2), b)
        terms.append(1 - (cosines.amax(dim=2).mean() + cosines.amax(dim=1).mean()) / 2)
    return torch.stack(terms).mean()


class LocalTarget(NamedTuple):
    """How the targets of the local feature loss are computed.

    similarity, logit_scale: of the attention, the same as in the model that is trained (ModelConfig). samples: number
    of random style positions to use, an approximation that saves time; None uses all. generator: draws the positions;
    required with `samples`.
    """

    similarity: Similarity = "softmax"
    logit_scale: float | None = None
    samples: int | None = None
    generator: torch.Generator | None = None


def local_feature_loss(
    stylized: Features,
    content: Features,
    style: Features,
    levels: Sequence[str] = PUBLISHED_LEVELS,
    target: LocalTarget = LocalTarget(),  # noqa: B008 (immutable)
    relative: bool = False,
) -> Tensor:
    """Squared distance to `local_target` at each level.

    Args:
        stylized, content, style: level -> (B, C, H, W).
        levels: levels to sum over.
        target: how the targets are computed.
        relative: divide the distance of each picture by the mean square of its target.
    """
    terms = []
    for level in levels:
        wanted = local_target(content, style, level, target)
        error = (to_float32(stylized[level]) - wanted).square().mean(dim=(1, 2, 3))
        size = wanted.square().mean(dim=(1, 2, 3)).clamp_min(MIN_TARGET_SIZE) if relative else 1.0
        terms.append((error / size).mean())
    return _sum(terms)


@torch.no_grad()
def local_target(content: Features, style: Features, level: str, target: LocalTarget = LocalTarget()) -> Tensor:  # noqa: B008
    """AdaAttN without learnable layers: VGG features of the content with the statistics that attention selects.

    Args:
        content, style: VGG features down to `level`, (B, C, H, W) each.
        level: the level.
        target: how it is computed.

    Returns:
        (B, C, H, W) float32; no gradient flows through it.
    """
    height = content[level].shape[-2]
    query, key = (rearrange(stacked_key(features, level), "b c h w -> b (h w) c") for features in (content, style))
    if target.logit_scale is not None:
        query, key = F.normalize(query, dim=-1) * target.logit_scale, F.normalize(key, dim=-1)
    value = rearrange(style[level], "b c h w -> b (h w) c")
    if target.samples is not None and target.samples < key.shape[1]:
        if target.generator is None:
            raise ValueError("a sampled local target needs a torch.Generator")
        chosen = torch.randperm(key.shape[1], generator=target.generator)[: target.samples].to(key.device)
        key, value = key[:, chosen], value[:, chosen]
    moments = attention_moments(query, key, value, kernel=AttentionKernel(target.similarity))
    mean, std = (rearrange(x, "b (h w) c -> b c h w", h=height) for x in moments)
    return std * normalize_channels(content[level]) + mean


def teacher_loss(picture: Tensor, target: Tensor, features: Features, target_features: Features) -> Tensor:
    """Distance to a teacher's pictures: mean absolute difference of pixels, and of features relative to their size.

    Args:
        picture, target: (B, 3, H, W), approximately in [0, 1].
        features, target_features: VGG-19 features of both; all levels of `target_features` are used.
    """
    terms = [F.l1_loss(picture, target)]
    for level, wanted in target_features.items():
        size = to_float32(wanted).square().mean().clamp_min(MIN_TARGET_SIZE)
        terms.append(F.mse_loss(to_float32(features[level]), to_float32(wanted)) / size)
    return _sum(terms)


def image_similarity_loss(
    stylized: tuple[Features, Features],
    content: tuple[Features, Features],
    levels: Sequence[str],
    samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Compare the similarities between two frames after stylisation with those before, to prevent flicker in videos.

    D_ij = 1 - cos of position i of the first frame and position j of the second. Each column is divided by its sum and
    then says how different the positions of the first frame are from j. The loss is the distance between the columns
    of the stylised frames and those of the contents.

    Differs from the paper: summed over i and averaged over j, where the paper averages over both, so that the loss of
    a level lies between 0 and 2 whatever the level's size; and computed on random positions.

    Args:
        stylized, content: features of the first and of the second frames, (B, C, H, W) each.
        levels: levels to sum over.
        samples: largest number of positions of each frame; they are the same in content and stylised frames.
        generator: draws the positions.
    """
    terms = []
    for level in levels:
        positions = []
        for frame in content:
            count = frame[level].shape[-2] * frame[level].shape[-1]
            positions.append(torch.randperm(count, generator=generator)[:samples].to(frame[level].device))
        target, distances = (cosine_distance_matrix(frames, level, positions) for frames in (content, stylized))
        terms.append((distances - target).abs().sum(dim=1).mean())
    return _sum(terms)


def cosine_distance_matrix(frames: tuple[Features, Features], level: str, positions: Sequence[Tensor]) -> Tensor:
    """D of `image_similarity_loss` with columns that sum to 1.

    Args:
        frames: features of the first and of the second frames.
        level: the level to compare.
        positions: indices of the positions to use, for each of the two frames.

    Returns:
        (B, positions of the first frame, positions of the second frame).
    """
    first, second = (
        F.normalize(to_float32(features[level]).flatten(2)[:, :, indices], dim=1)
        for features, indices in zip(frames, positions, strict=True)
    )
    with without_autocast(first.device.type):
        distance = 1 - torch.bmm(first.transpose(1, 2), second)
    return distance / distance.sum(dim=1, keepdim=True).clamp_min(MIN_MEAN_DISTANCE * distance.shape[1])


def identity_loss(picture: Tensor, original: Tensor, features: Features, original_features: Features) -> Tensor:
    """Distance between a picture stylised with itself and the original, in pixels and in features.

    Source: Park & Lee, "SANet", CVPR 2019: both identity losses, in their ratio of 50 to 1. Differs from theirs:
    squares are averaged, as in all losses here, instead of summed under a root.

    Args:
        picture, original: (B, 3, H, W) in [0, 1].
        features, original_features: VGG-19 features of both; all levels of `features` are used.
    """
    return 50 * F.mse_loss(picture, original) + _sum(
        F.mse_loss(to_float32(features[level]), to_float32(original_features[level])) for level in features
    )


def color_loss(picture: Tensor, style: Tensor) -> Tensor:
    """Distance of the colour distributions (ops.color.color_distance), independent of position; black to white is 1."""
    with without_autocast(picture.device.type):
        return color_distance(picture.float(), style.float()).mean() / 100


def checkerboard_loss(picture: Tensor, period: int = MESH_PERIOD) -> Tensor:
    """How unevenly detail is distributed over the columns and rows of a grid, which shows as a faint checkerboard.

    The differences between neighbouring pixels are averaged over the pictures for each of the `period` columns of a
    grid cell. The term is the relative standard deviation of these averages; the same term of the rows is added. It is
    0 without a checkerboard, and about 0.06 for photographs of a few hundred pixels, by chance and from JPEG blocks.

    Args:
        picture: (B, 3, H, W), aligned with the grid; H and W above `period`.
        period: side of a grid cell in pixels.
    """
    return _sum(_unevenness(x, period) for x in (picture, picture.transpose(-1, -2)))


def _unevenness(picture: Tensor, period: int) -> Tensor:
    differences = (picture[..., 1:] - picture[..., :-1]).abs().mean(dim=(0, 1, 2))
    length = len(differences) // period * period
    columns = rearrange(differences[:length], "(cells column) -> cells column", column=period).mean(dim=0)
    mean = columns.mean()
    variance = ((columns - mean) / mean.clamp_min(MIN_PIXEL_DIFFERENCE)).square().mean()
    return variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()  # the root has no finite gradient at 0


def _sum(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()


@torch.no_grad()
def normalize_activations(encoder: VGGEncoder, images: Tensor, floor: float = 0.2) -> None:
    """Rescale an encoder, in place, so that the mean activation of each channel over some pictures is 1.

    Levels and channels then have the same weight in a loss. The network computes the same function up to these
    factors, since ReLU and max-pooling commute with them.

    Args:
        encoder: VGG-19 from any source.
        images: (B, 3, H, W) in [0, 1], a few dozen training pictures.
        floor: channels whose mean activation is less than this share of their layer's mean are scaled as if they had
            that share; without a floor, channels that are almost always 0 would dominate every loss. Channels that
            are 0 on all pictures are not scaled if there is no floor or if their whole layer is 0.
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
