"""Reference implementation of the published AdaAttN algorithm: the baseline of benchmarks and the oracle of tests.

Each attention matrix is materialised, as logits and as weights, so the cost is that of the published code. This module
and the library do not use each other. Letters: B batch, C value channels, K key channels, H W rows and
columns, Nc and Ns content and style positions.

Source: Liu et al., ICCV 2021, arXiv:2108.03647; github.com/Huage001/AdaAttN at 524b2b1 (Apache-2.0).
Differs from the published code: style positions are sampled by a generator that is passed in, while the published code
reseeds the global one; several styles, files and training are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]
"""State dict with the keys of one published file."""
Files = Mapping[str, Weights]
"""`vgg`, `adaattn_3`, `transformer`, `decoder` (image model), `video.transformer`, `video.decoder` (video model)."""
Features = dict[str, Tensor]
Similarity = Literal["softmax", "cosine"]

LEVELS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
EPSILON = 1e-5
MASKED_LOGIT = -1e15
"""Beyond float16: the region variant needs float32 or bfloat16."""

# Sequential index of each 3x3 convolution; "P" is a pool, "U" doubles the size.
ENCODER_STEPS = ("2", "5", "P", "9", "12", "P", "16", "19", "22", "25", "P", "29", "32", "35", "38", "P", "42")
LEVEL_OF_CONV = {"2": "relu1_1", "9": "relu2_1", "16": "relu3_1", "29": "relu4_1", "42": "relu5_1"}
DECODER_STEPS = ("1", "4", "7", "10", "U", "14", "17", "U", "21", "24")


class Sampling(NamedTuple):
    """How many style positions are sampled (None: all of them), and the CPU generator that samples them."""

    shallow: int | None = 64 * 64  # relu3_1, and every level of the local loss
    deep: int | None = 256 * 256  # relu4_1 and relu5_1
    generator: torch.Generator | None = None


PUBLISHED = Sampling()


class Masks(NamedTuple):
    """Content positions with mask 1 attend only to style positions with mask 1. Each (B or 1, 1, H, W), 0 or 1."""

    content: Tensor
    style: Tensor


def stylize(
    files: Files, content: Tensor, style: Tensor, sampling: Sampling = PUBLISHED, masks: Masks | None = None
) -> Tensor:
    """The image model: (B, 3, H, W) and (B, 3, H', W') RGB in [0, 1] -> (B, 3, H, W), not clamped."""
    fused = fuse(files, encode(files["vgg"], content), encode(files["vgg"], style), sampling, masks)
    return decode(files["decoder"], fused)


def stylize_frames(files: Files, frames: Tensor, style: Tensor, sampling: Sampling = PUBLISHED) -> Tensor:
    """The video model, each frame by itself: shapes and range as in `stylize`."""
    fused = fuse_frames(files, encode(files["vgg"], frames), encode(files["vgg"], style), sampling)
    return decode_frames(files["video.decoder"], fused)


def encode(vgg: Weights, images: Tensor) -> Features:
    """VGG-19 to relu5_1 with reflection padding and pools that round up; a 1x1 convolution does the preprocessing.

    Args:
        images: (B, 3, H, W) RGB in [0, 1]; H and W multiples of 16, at least 32.

    Returns:
        level -> (B, C, H / stride, W / stride), strides 1 to 16.
    """
    height, width = images.shape[-2:]
    if height % 16 or width % 16 or min(height, width) < 32:
        raise ValueError(
            f"images are {width}x{height} pixels; the published code needs multiples of 16 from 32 up. "
            "Pad or resize them first."
        )
    features: Features = {}
    x = convolve(vgg, "0", images)
    for step in ENCODER_STEPS:
        if step == "P":
            x = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=True)
            continue
        x = torch.relu(convolve(vgg, step, x))
        if step in LEVEL_OF_CONV:
            features[LEVEL_OF_CONV[step]] = x
    return features


def convolve(weights: Weights, name: str, x: Tensor) -> Tensor:
    """Convolution `name`, (B, Cin, H, W) -> (B, Cout, H, W); a 3x3 kernel sees a mirrored border."""
    weight = weights[f"{name}.weight"]
    if weight.shape[-1] == 3:
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(x, weight, weights[f"{name}.bias"])


def channel_mean_std(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (B, C, H, W) -> two of (B, C, 1, 1); the variance is unbiased."""
    variance = features.var(dim=(2, 3), keepdim=True) + EPSILON
    return features.mean(dim=(2, 3), keepdim=True), variance.sqrt()


def normalize(features: Tensor) -> Tensor:
    """(B, C, H, W) with every channel at mean 0 and standard deviation 1."""
    mean, std = channel_mean_std(features)
    return (features - mean) / std


def stacked_key(features: Features, level: str) -> Tensor:
    """Levels down to `level`, resized to its grid (nearest), normalised one by one: (B, sum of C, H, W)."""
    names, size = LEVELS[: LEVELS.index(level) + 1], features[level].shape[-2:]
    return torch.cat([normalize(F.interpolate(features[name], size=size, mode="nearest")) for name in names], dim=1)


def attention_weights(query: Tensor, key: Tensor, similarity: Similarity, blocked: Tensor | None = None) -> Tensor:
    """The weight of each style position for each content position.

    Args:
        query, key: (B, K, Nc), (B, K, Ns).
        similarity: "softmax" of the plain product (image), or cosine + 1 divided by its sum (video).
        blocked: (B or 1, Nc, Ns) bool, True where a style position is excluded.

    Returns:
        (B, Nc, Ns); rows sum to 1. The logits, as large, are alive until this returns.
    """
    if similarity == "cosine":
        query, key = (x / (x.norm(dim=1, keepdim=True) + EPSILON) for x in (query, key))
    logits = torch.bmm(query.transpose(1, 2), key)
    if blocked is not None:
        logits = logits.masked_fill(blocked, MASKED_LOGIT)
    if similarity == "softmax":
        return torch.softmax(logits, dim=-1)
    positive = torch.relu(logits + 1)
    return positive / (positive.sum(dim=-1, keepdim=True) + EPSILON)


def blocked_pairs(masks: Masks, content: Tensor, key: Tensor) -> Tensor:
    """(B or 1, Nc, Ns) bool, True where the content mask is 1 and the style mask 0; masks are resized nearest."""
    inside = F.interpolate(masks.content, size=content.shape[-2:], mode="nearest").flatten(1) > 0.5
    outside = F.interpolate(masks.style, size=key.shape[-2:], mode="nearest").flatten(1) <= 0.5
    return inside[:, :, None] & outside[:, None, :]


def adaattn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    content: Tensor,
    samples: int | None,
    generator: torch.Generator | None,
    similarity: Similarity = "softmax",
    masks: Masks | None = None,
) -> Tensor:
    """S * Norm(F_c) + M: the content level with the attended mean M and standard deviation S of the style.

    Args:
        query, key, value, content: (B, K, H, W), (B, K, H', W'), (B, C, H', W') and (B, C, H, W).
        samples: style positions to attend to, chosen by `generator` when there are more; None: all.
    """
    blocked = None if masks is None else blocked_pairs(masks, content, key)
    query, key, value = query.flatten(2), key.flatten(2), value.flatten(2)
    positions = key.shape[2]
    if samples is not None and samples < positions:
        if generator is None:
            raise ValueError(f"{positions} style positions, of which {samples} are to be sampled; pass a generator.")
        chosen = torch.randperm(positions, generator=generator)[:samples].to(key.device)
        key, value = key[:, :, chosen], value[:, :, chosen]
        blocked = None if blocked is None else blocked[:, :, chosen]
    weights = attention_weights(query, key, similarity, blocked).transpose(1, 2)
    mean = torch.bmm(value, weights)
    std = torch.sqrt(torch.relu(torch.bmm(value**2, weights) - mean**2))
    return std.reshape(content.shape) * normalize(content) + mean.reshape(content.shape)


def attend(
    weights: Weights,
    prefix: str,
    level: str,
    content: Features,
    style: Features,
    sampling: Sampling,
    masks: Masks | None = None,
    similarity: Similarity = "softmax",
) -> Tensor:
    """AdaAttN at one level, with the 1x1 convolutions `<prefix>f`, `<prefix>g` and `<prefix>h`; (B, C, H, W)."""
    query = convolve(weights, f"{prefix}f", stacked_key(content, level))
    key = convolve(weights, f"{prefix}g", stacked_key(style, level))
    value = convolve(weights, f"{prefix}h", style[level])
    samples = sampling.shallow if level == "relu3_1" else sampling.deep
    return adaattn(query, key, value, content[level], samples, sampling.generator, similarity, masks)


def fuse(
    files: Files, content: Features, style: Features, sampling: Sampling = PUBLISHED, masks: Masks | None = None
) -> Features:
    """`relu3_1`, `relu4_1`, `relu5_1`: each level's AdaAttN; `merged`: relu4_1 + upsampled relu5_1, convolved."""
    transformer = files["transformer"]
    skip = attend(files["adaattn_3"], "", "relu3_1", content, style, sampling, masks)
    middle = attend(transformer, "attn_adain_4_1.", "relu4_1", content, style, sampling, masks)
    deep = attend(transformer, "attn_adain_5_1.", "relu5_1", content, style, sampling, masks)
    merged = convolve(transformer, "merge_conv", middle + F.interpolate(deep, scale_factor=2, mode="nearest"))
    return {"relu3_1": skip, "relu4_1": middle, "relu5_1": deep, "merged": merged}


def fuse_frames(files: Files, content: Features, style: Features, sampling: Sampling = PUBLISHED) -> Tensor:
    """The one level of the video model, relu3_1 with cosine weights; (B, 256, H / 4, W / 4)."""
    return attend(files["video.transformer"], "", "relu3_1", content, style, sampling, similarity="cosine")


def decode(decoder: Weights, fused: Features) -> Tensor:
    """Image decoder: `fused` with `merged` and the skip `relu3_1` -> (B, 3, H, W), about [0, 1], not clamped."""
    x = torch.relu(convolve(decoder, "decoder_layer_1.1", fused["merged"]))
    x = torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), fused["relu3_1"]], dim=1)
    return decode_frames(decoder, x, "decoder_layer_2")


def decode_frames(decoder: Weights, x: Tensor, prefix: str = "decoder") -> Tensor:
    """Video decoder, and the tail of the image decoder: (B, C, H / 4, W / 4) -> (B, 3, H, W), not clamped."""
    for step in DECODER_STEPS[:-1]:
        if step == "U":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        else:
            x = torch.relu(convolve(decoder, f"{prefix}.{step}", x))
    return convolve(decoder, f"{prefix}.{DECODER_STEPS[-1]}", x)


def losses(ours: Features, content: Features, style: Features, sampling: Sampling = PUBLISHED) -> dict[str, Tensor]:
    """Scalars `content`, `global` and `local` of a result with features `ours`; trained with 10 global + 3 local.

    Differs from the paper, as the published code does: means of squares, and relu2_1 in the local loss.
    """
    total = dict.fromkeys(("content", "global", "local"), ours["relu2_1"].new_zeros(()))
    for level in LEVELS[1:]:
        query, key, value = stacked_key(content, level), stacked_key(style, level), style[level]
        target = adaattn(query, key, value, content[level], sampling.shallow, sampling.generator)
        moments = zip(channel_mean_std(ours[level]), channel_mean_std(value), strict=True)
        total["content"] = total["content"] + F.mse_loss(normalize(ours[level]), normalize(content[level]))
        total["global"] = total["global"] + sum(F.mse_loss(result, style_moment) for result, style_moment in moments)
        total["local"] = total["local"] + F.mse_loss(ours[level], target)
    return total
