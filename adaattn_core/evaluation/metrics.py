"""Metrics of stylised pictures as pure functions: how much content is kept, how much style is taken.

Pictures are (B, 3, H, W) RGB in [0, 1]; features come from a feature network (see `networks`), level name ->
(B, C, H, W). Every metric returns one value per picture, (B,) float32. `style_spread` and `style_retrieval` relate
the pictures of a whole evaluation to each other; their (N,) and (S,) run over all pictures and all styles.
docs/evaluation.md says how well the metrics agree with human judgement, and why every table needs the rows "content
unchanged" and "style copied".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from torch import Tensor

from ..ops.layout import pictures_in_words

Statistics = Mapping[str, Tensor]
"""Level name -> the statistics of that level, (B, ...)."""

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
LPIPS_ROWS, STRUCTURE_ROWS, POSITIONS = 32, 128, 8192
"""Rows and positions per chunk. In chunks that fit a processor's cache, LPIPS takes a third of the time."""
SIMILARITY_VALUES = 2**22
"""Cosines of `patch_distance` in memory at a time, 16 MB; a picture of 256 x 384 pixels has 1536 x 1536."""
STRUCTURE_POSITIONS = 128 * 128
"""Positions of relu3_1 in a 512 x 512 picture, the size at which CFSD is usually reported."""

_LUMA = (0.299, 0.587, 0.114)


# Content kept


def ssim(image: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity of the luminance: 1 for equal pictures, about 0 for unrelated ones; higher is better.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004:
    11 x 11 Gaussian window with standard deviation 1.5, K1 = 0.01, K2 = 0.03, averaged over all positions where the
    window lies inside the picture. Luminance is the BT.601 luma of the gamma-encoded values, as in the authors' code.

    Args:
        image, reference: of equal size, at least 11 pixels a side.
    """
    _check_same_size(image, reference)
    x, y = (einsum(picture.float(), picture.new_tensor(_LUMA), "b c h w, c -> b h w")[:, None]
            for picture in (image, reference))  # fmt: skip
    # Each picture's mean is subtracted first: E[x^2] - E[x]^2 would cancel in float32 where it is flat and bright.
    shift_x, shift_y = (reduce(picture, "b 1 h w -> b 1 1 1", "mean") for picture in (x, y))
    x, y = x - shift_x, y - shift_y
    local_x, local_y = _blur(x), _blur(y)
    mean_x, mean_y = local_x + shift_x, local_y + shift_y
    variance_x, variance_y = _blur(x * x) - local_x**2, _blur(y * y) - local_y**2
    covariance = _blur(x * y) - local_x * local_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (variance_x + variance_y + SSIM_C2)
    return reduce(luminance * structure, "b 1 h w -> b", "mean")


def _blur(x: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B, 1, H - 10, W - 10): mean weighted by the Gaussian window."""
    offsets = torch.arange(SSIM_WINDOW, device=x.device, dtype=x.dtype) - SSIM_WINDOW // 2
    window = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    window = window / window.sum()
    return F.conv2d(F.conv2d(x, window.reshape(1, 1, -1, 1)), window.reshape(1, 1, 1, -1))


def content_distance(stylized: Mapping[str, Tensor], content: Mapping[str, Tensor], levels: Sequence[str]) -> Tensor:
    """Relative L2 distance of channel-normalised features, averaged over levels: the layout without the colours.

    0 for equal pictures, sqrt 2 for unrelated ones: it is sqrt(2 - 2r), r the mean correlation of the channels.
    Normalised as in the paper's `Norm`, so that a change of contrast or palette alone changes it little.
    """
    distances = [relative_distance(_normalize(stylized[level]), _normalize(content[level])) for level in levels]
    return torch.stack(distances).mean(dim=0)


def _normalize(features: Tensor) -> Tensor:
    mean, std = _mean_std(features)
    return (features.float() - mean[..., None, None]) / _floored(std)[..., None, None]


def _floored(std: Tensor) -> Tensor:
    """Standard deviations (B, C), at least 1e-5 times the largest: a channel may be 0 everywhere."""
    return std.clamp_min(1e-5 * std.amax(dim=1, keepdim=True).clamp_min(1e-20))


def lpips_distance(image: Mapping[str, Tensor], reference: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> Tensor:
    """Learned perceptual distance: 0 for equal pictures.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, v0.1.

    Args:
        image, reference: features of two pictures of equal size.
        heads: level name -> (C,) non-negative weight of each channel.
    """
    total = torch.zeros(len(next(iter(image.values()))), device=next(iter(heads.values())).device, dtype=torch.float32)
    for level, weights in heads.items():
        features = image[level]
        chunks = (torch.split(x, LPIPS_ROWS, dim=2) for x in (features, reference[level]))
        for a, b in zip(*chunks, strict=True):
            squared = (F.normalize(a.float(), eps=1e-10) - F.normalize(b.float(), eps=1e-10)) ** 2
            weighted = einsum(squared, weights, "b c h w, c -> b h w")
            total += reduce(weighted, "b h w -> b", "sum") / (features.shape[2] * features.shape[3])
    return total


def structure_distance(stylized: Tensor, content: Tensor, rows: int = 1024) -> Tensor:
    """Content feature structural distance (CFSD): the change of the patches' self-similarity; 0 for equal pictures.

    Each position of relu3_1 gives a distribution over all positions, softmax(F F^T / C^2); CFSD is the sum over
    positions of the Kullback-Leibler divergence from the content's distribution to the stylised one's.
    Source: Chung et al., "Style Injection in Diffusion" (StyleID), CVPR 2024, and its evaluation code.
    Differs from that code: the sum is estimated as 16384 times the mean over a regular grid of at most `rows` positions
    (compared with all positions), so that memory is bounded and the value does not grow with the picture.

    Args:
        stylized, content: relu3_1 features of equal size, (B, C, H, W), at the scale of torchvision's networks.
        rows: positions whose distributions are compared.
    """
    _check_same_size(stylized, content)
    channels = content.shape[1]
    images = [rearrange(features.float() / channels, "b c h w -> b (h w) c") for features in (stylized, content)]
    last = images[0].shape[1] - 1
    chosen = torch.linspace(0, last, min(rows, last + 1), device=content.device, dtype=torch.float32).round().long()
    divergences = []
    for chunk in torch.split(chosen, STRUCTURE_ROWS):
        (logits, normalizer), (content_logits, content_normalizer) = (_self_similarity(x, chunk) for x in images)
        difference = content_logits.softmax(dim=-1) * (content_logits - logits)
        expected = reduce(difference, "b rows columns -> b rows", "sum")
        divergences.append(expected - (content_normalizer - normalizer))
    return reduce(torch.cat(divergences, dim=1), "b rows -> b", "mean").clamp_min(0) * STRUCTURE_POSITIONS


def _self_similarity(image: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the chosen rows, and the logarithm of the mean of their exponentials.

    Not log_softmax: these distributions are nearly uniform, and their differences are smaller than its rounding.
    """
    logits = image[:, rows] @ image.mT
    peak = logits.amax(dim=-1, keepdim=True)
    return logits, (reduce((logits - peak).exp(), "b rows columns -> b rows", "mean").log() + peak[..., 0])


# Style taken


def channel_statistics(features: Mapping[str, Tensor], levels: Sequence[str]) -> dict[str, Tensor]:
    """Mean and standard deviation of every channel, per level -> (B, 2C): the statistics AdaIN matches."""
    return {level: torch.cat(_mean_std(features[level]), dim=1) for level in levels}


def _mean_std(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) standard deviation of every channel, (B, C) each in float32."""
    parts = torch.split(rearrange(features.float(), "b c h w -> b (h w) c"), POSITIONS, dim=1)
    count = features.shape[2] * features.shape[3]
    mean = torch.stack([part.sum(dim=1, keepdim=True) for part in parts]).sum(dim=0) / count
    variance = torch.stack([(part - mean).square().sum(dim=1) for part in parts]).sum(dim=0) / count
    return mean[:, 0], variance.sqrt()


def gram_matrices(features: Mapping[str, Tensor], levels: Sequence[str]) -> dict[str, Tensor]:
    """F F^T / (H W) per level -> (B, C, C): the statistics that Gatys et al. 2016 match."""
    matrices = {}
    for level in levels:
        flat = rearrange(features[level].float(), "b c h w -> b c (h w)")
        matrices[level] = flat @ flat.mT / flat.shape[2]
    return matrices


def statistics_distance(stylized: Statistics, style: Statistics) -> Tensor:
    """Relative L2 distance of statistics, averaged over levels: 0 for equal ones, 1 where the stylised picture's are 0.

    With `channel_statistics` it is the style distance, with `gram_matrices` the Gram distance. The two pictures may
    differ in size.
    """
    return torch.stack([relative_distance(stylized[level], target) for level, target in style.items()]).mean(dim=0)


def relative_distance(x: Tensor, reference: Tensor) -> Tensor:
    """|x - reference| / |reference| of each item: (B, ...) -> (B,); 0 where both are 0."""
    difference, norm = (a.float().flatten(1).square().sum(dim=1).sqrt() for a in (x - reference, reference))
    return difference / norm.clamp_min(torch.finfo(torch.float32).tiny)


def patch_distance(stylized: Tensor, style: Tensor) -> Tensor:
    """Bidirectional dissimilarity of the patches of two pictures: 0 where each consists of patches of the other.

    Each channel is normalised by the style's mean and standard deviation, in both pictures. Each position has a nearest
    position in the other picture; the distance is 1 - cosine, averaged over positions and then over both directions.
    Stylised to style asks whether the picture has patches that the style lacks; style to stylised asks whether patches
    of the style are missing in it.
    Source: Simakov et al., "Summarizing Visual Data Using Bidirectional Similarity", CVPR 2008, equation 1.
    Differs from it: patches are positions of one level of a feature network, compared by cosine, instead of pixels at
    several scales, compared by squared distance.

    Args:
        stylized, style: features of one level, (B, C, H, W); the two may differ in size.
    """
    mean, std = _mean_std(style)
    a, b = (_unit_patches(features, mean[:, None], _floored(std)[:, None]) for features in (stylized, style))
    nearest_b = a.new_full((len(b), b.shape[1]), -1.0)
    total = a.new_zeros(len(a))
    for rows in torch.split(a, max(1, SIMILARITY_VALUES // (len(b) * b.shape[1])), dim=1):
        cosines = rows @ b.mT
        total += cosines.amax(dim=2).sum(dim=1)
        nearest_b = torch.maximum(nearest_b, cosines.amax(dim=1))
    return 1 - (total / a.shape[1] + nearest_b.mean(dim=1)) / 2


def _unit_patches(features: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C): normalised by the mean and standard deviation, (B, 1, C), then of length 1."""
    patches = rearrange(features.float(), "b c h w -> b (h w) c")
    return F.normalize((patches - mean) / std, dim=2)


# Style taken, among all pictures of an evaluation


def style_spread(pictures: Statistics, styles: Statistics, content: Tensor, style: Tensor) -> Tensor:
    """How far a content's pictures in different styles differ, relative to the styles: 0 if they are all alike.

    The distance of two pictures of one content in two styles over the distance of the two styles, averaged over levels,
    then over the other pictures of the same content. The content unchanged has 0, the styles themselves have 1.

    Args:
        pictures, styles: `channel_statistics` of all pictures of one method, (N, D), and of all styles, (S, D).
        content, style: index of each picture's content and of its style in `styles`, (N,).

    Returns:
        (N,); NaN for a picture without a partner: no other picture has its content and another style.
    """
    spread = torch.full((len(content),), math.nan, dtype=torch.float32)
    for index in set(content.tolist()):
        group = (content == index).nonzero()[:, 0]
        names = style[group]
        ratios = [
            _pairwise(level[group], level[group]) / _pairwise(styles[name][names], styles[name][names])
            for name, level in pictures.items()
        ]
        ratio = torch.stack(ratios).mean(dim=0)  # not finite where the styles are equal: a picture with itself
        spread[group] = ratio.where(ratio.isfinite(), math.nan).nanmean(dim=1)
    return spread


def style_retrieval(pictures: Statistics, styles: Statistics, style: Tensor) -> Tensor:
    """1 where no style is nearer to a picture than its own, else 0. Its mean by chance is 1 / S.

    Args:
        pictures, styles, style: as in `style_spread`.

    Returns:
        (N,); NaN where there is only one style.
    """
    if len(next(iter(styles.values()))) < 2:
        return torch.full((len(style),), math.nan, dtype=torch.float32)
    distances = torch.stack([
        _pairwise(level, styles[name]) / styles[name].norm(dim=1).mean().clamp_min(torch.finfo(torch.float32).tiny)
        for name, level in pictures.items()
    ]).mean(dim=0)  # fmt: skip
    own = distances.gather(1, style[:, None])[:, 0]
    return (own <= distances.amin(dim=1)).float()


def _pairwise(a: Tensor, b: Tensor) -> Tensor:
    """(N, D), (S, D) -> L2 distances (N, S), exactly 0 for equal rows."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


# Over many pictures


def bootstrap_interval(
    values: Tensor, generator: torch.Generator, *, resamples: int = 2000, confidence: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Percentile bootstrap interval of each column's mean. Source: Efron & Tibshirani 1993, chapter 13.

    Args:
        values: (N, M): M metrics of each of N pictures; a resample keeps the metrics of a picture together.
        generator: source of the resamples; the same state gives the same interval.

    Returns:
        low, high: (M,) each. For N = 1 both are the value itself.
    """
    values = values.double()
    means = values.new_empty(resamples, values.shape[1])  # small tensors kept between resamples would fragment the heap
    for mean in means:
        torch.mean(values[torch.randint(len(values), (len(values),), generator=generator)], dim=0, out=mean)
    tail = (1 - confidence) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=0)
    return low, high


def _check_same_size(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        came = f"{pictures_in_words(a.shape)}, the other {pictures_in_words(b.shape)}"
        raise ValueError(f"one is {came}; equal sizes are needed. Resize one.")
