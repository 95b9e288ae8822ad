"""Refinement: the pixels of a stylised picture optimised towards AdaAttN's own target in VGG-19.

The target needs no training. On relu3_1, relu4_1 and relu5_1 each content position attends to the style positions that
resemble it, with VGG-19's normalised stacked keys and no learned projections, and takes their mean and standard
deviation. The whole picture takes the style's channel statistics on relu2_1 to relu5_1. These are the two losses that
a feed-forward model is trained with; here they are minimised for one picture.

Most steps run at a short side of 256 pixels, a few at 512 and 1024. What the coarse steps changed is enlarged and added
to the picture, so that the picture keeps its detail.

Source: Liu et al., ICCV 2021, section 3.4, for the losses; Gatys et al., CVPR 2016, for optimising pixels.
Letters: B batch, C channels, H W pixels or positions of a level's grid.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, autocast

from ..checkpoints.vgg import load_vgg
from ..models.attention import attention_target
from ..models.encoder import LEVELS, Features, VGGEncoder
from ..ops.color import keep_color as keep_content_color
from ..ops.layout import counted
from ..ops.masks import fit_mask, resize_mask
from ..ops.resize import MIN_SIDE, resize_image
from ..ops.statistics import normalize_channels, position_weights, weighted_mean_std
from ..runtime.device import disable_tf32, fastest_dtype
from ..runtime.memory import empty_cache, is_out_of_memory
from ..runtime.progress import ProgressCallback, sub_progress
from .validation import check_picture, check_unit, normalize_weights, style_masks_or_none

logger = logging.getLogger(__name__)

LOCAL_LEVELS = LEVELS[2:]
"""Levels with an attention target."""
GLOBAL_LEVELS = LEVELS[1:]
"""Levels whose channel statistics are compared."""
CONTENT_LEVEL = "relu4_1"
LOCAL_WEIGHT, GLOBAL_WEIGHT, SMOOTHNESS_WEIGHT, RANGE_WEIGHT = 3.0, 3.0, 5.0, 10.0
LOGIT_SCALE = 32.0
"""Logits of the target's attention are cosines times this, divided by the temperature."""
FLAT_VARIANCE = 1e-3
"""Variance of features with mean activation 1 below which a style counts as flat."""
MAX_STEPS = 10_000
KEPT_PIXELS = 640 * 640
"""Up to so many pixels all activations are kept for the backward pass; above it each block is computed again."""
BYTES_PER_PIXEL = 4096
"""Memory of a step for each pixel of its size: about 1 GiB at 512 x 512, up to 4 GiB at 1024 x 1024."""


class Scale(NamedTuple):
    """Optimisation at one size. short_side: pixels. rate: Adam's first learning rate, in units of [0, 1] pixels."""

    short_side: int
    steps: int
    rate: float


def plan_scales(short_side: int, steps: int) -> list[Scale]:
    """Sizes to optimise at, coarse to fine, for a picture of this short side.

    `steps` steps at 256 pixels, a sixth of them at 512 and a twelfth at 1024. Fine steps add texture to the strokes
    that the coarse steps have laid; each costs four times as much as one of the size before.

    >>> [tuple(scale) for scale in plan_scales(600, 60)]
    [(256, 60, 0.02), (512, 10, 0.008), (600, 5, 0.008)]
    """
    scales = [Scale(min(short_side, 256), steps, 0.02)]
    for side, divisor in ((512, 6), (1024, 12)):
        if short_side > scales[-1].short_side:
            scales.append(Scale(min(short_side, side), max(1, round(steps / divisor)), 0.008))
    return scales


def memory_needed(height: int, width: int) -> int:
    """Bytes that the steps at the largest size need beside the pictures, roughly."""
    short_side = plan_scales(min(height, width), 1)[-1].short_side
    return round(height * width * (short_side / min(height, width)) ** 2 * BYTES_PER_PIXEL)


@torch.inference_mode(False)
def refine(
    image: Tensor,
    content: Tensor,
    style: Tensor | Sequence[Tensor],
    *,
    steps: int = 100,
    style_weights: Sequence[float] | None = None,
    strength: float = 1.0,
    content_weight: float = 0.0,
    temperature: float = 1.0,
    content_mask: Tensor | None = None,
    style_masks: Sequence[Tensor | None] | None = None,
    keep_color: bool = False,
    vgg: VGGEncoder | None = None,
    dtype: torch.dtype | None = None,
    progress: ProgressCallback | None = None,
    preview: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """A stylised picture with its pixels optimised, so that the strokes of the style show.

    Args:
        image: (B, 3, H, W) in [0, 1]: where to start, usually the result of `stylize`. The content works too.
        content: (B, 3, H, W), the size of `image`.
        style: one picture or several, each of batch 1 or B, of any size from 16 pixels up.
        steps: steps at a short side of 256 pixels (see `plan_scales`); 0 returns `image` itself.
        style_weights: one share per style, scaled to sum 1; None mixes equally.
        strength: 0 returns the content. Below 1 the target lies between the content's features and the style's.
        content_weight: 0 is neutral; 1 and more hold on to the shapes of the content more strictly.
        temperature: above 0; 1 is neutral, higher mixes more style positions into each content position.
        content_mask: where to paint: 1 the result, 0 the content, exactly. Same aspect ratio as the content.
        style_masks: one per style: the part of it to use; None uses all of it.
        keep_color: take only the brightness of the result, and the colours of the content.
        vgg: the network in which the losses are measured; None loads the built-in VGG-19.
        dtype: of convolutions. None is bfloat16 where the device computes it natively, else float32. Statistics and
            losses are float32 in any case.
        progress: called with the share that is done, from 0 to 1, several times in each step; stops the work by
            raising.
        preview: called after each step with the picture so far, (1, 3, h, w) in [0, 1], at the size of that step.

    Returns:
        (B, 3, H, W) float32 in [0, 1], on the content's device. On a CPU the same arguments and number of threads give
        the same picture, bit for bit.

    Raises:
        ValueError: an argument out of its range, or shapes that do not fit; the text says which.
    """
    styles = [style] if isinstance(style, Tensor | dict | str) else list(style)
    weights = normalize_weights(style_weights, len(styles))
    _check_pictures(image, content, styles)
    check_steps(steps)
    _check_numbers(strength, content_weight, temperature)
    masks = style_masks_or_none(style_masks, len(styles))
    fitted = None if content_mask is None else fit_mask(content_mask, content, "content").to(content.device)
    style_fits = [None if m is None else fit_mask(m, s, "style") for m, s in zip(masks, styles, strict=True)]
    if steps == 0:
        return image
    content = content.float().clamp(0, 1)
    if strength == 0:
        return content
    network = _for_gradients(load_vgg(normalized=True).to(content.device) if vgg is None else vgg)
    device = network.conv0.weight.device
    settings = _Settings(network, dtype or fastest_dtype(device), strength, content_weight, temperature)
    results = []
    for index in range(len(content)):
        job = _Job(
            _item(content, index).to(device),
            [_item(one.float().clamp(0, 1), index).to(device) for one in styles],
            [None if one is None else _item(one, index).to(device) for one in style_fits],
            weights,
            None if fitted is None else _item(fitted, index).to(device),
        )
        part = sub_progress(progress, index / len(content), (index + 1) / len(content))
        start = _item(image.float().clamp(0, 1), index).to(device)
        results.append(_refine_item(settings, job, start, steps, part, preview).to(content.device))
    if progress is not None:
        progress(1.0)
    result = torch.cat(results)
    if keep_color:
        result = keep_content_color(result, content)
    return result if fitted is None else torch.where(fitted > 0, torch.lerp(content, result, fitted), content)


def _check_pictures(image: Tensor, content: Tensor, styles: Sequence[Tensor]) -> None:
    for picture, role in ((image, "image"), (content, "content"), *((style, "style") for style in styles)):
        check_picture(picture, role)
    if image.shape != content.shape:
        came, needed = (f"{counted(len(x), 'picture')} of {x.shape[-1]}x{x.shape[-2]} pixels" for x in (image, content))
        raise ValueError(f"the image to refine is {came}, the content {needed}; give a result of that content")
    for style in styles:
        if len(style) not in (1, len(content)):
            more = f", or {len(content)}" if len(content) > 1 else ""
            raise ValueError(f"{len(style)} styles came for {counted(len(content), 'content')}; give 1 style{more}")


def check_steps(steps: int) -> None:
    """ValueError unless the number of steps is one that `refine` takes."""
    if not 0 <= steps <= MAX_STEPS or int(steps) != steps:
        raise ValueError(
            f"refine steps are {steps}; a whole number from 0 to {MAX_STEPS} is needed; 60 to 100 are usual"
        )


def _check_numbers(strength: float, content_weight: float, temperature: float) -> None:
    check_unit("strength", strength)
    if not 0 <= content_weight < float("inf"):
        raise ValueError(f"content_weight is {content_weight}; it must be 0 or above")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}; it must be above 0 (1 is neutral)")


def _for_gradients(vgg: VGGEncoder) -> VGGEncoder:
    """The network with its weights constant. Weights made in torch.inference_mode are copied: autograd refuses them."""
    vgg = deepcopy(vgg) if any(weight.is_inference() for weight in vgg.parameters()) else vgg
    return vgg.eval().requires_grad_(False)


def _item(batch: Tensor, index: int) -> Tensor:
    """One item, which a batch of 1 has for all."""
    return batch if len(batch) == 1 else batch[index : index + 1]


class _Settings(NamedTuple):
    """What is the same for all pictures and sizes."""

    vgg: VGGEncoder
    dtype: torch.dtype
    strength: float
    content_weight: float
    temperature: float


class _Job(NamedTuple):
    """One picture's inputs, on the network's device: content (1, 3, H, W), styles, their masks and shares, and where
    to paint, (1, 1, H, W) or None for everywhere."""

    content: Tensor
    styles: list[Tensor]
    style_masks: list[Tensor | None]
    weights: list[float]
    mask: Tensor | None


def _refine_item(
    settings: _Settings,
    job: _Job,
    image: Tensor,
    steps: int,
    progress: ProgressCallback | None,
    preview: Callable[[Tensor], None] | None,
) -> Tensor:
    """`image` (1, 3, H, W) after all scales. A scale that memory does not suffice for is left out with a warning."""
    scales = plan_scales(min(image.shape[-2:]), steps)
    costs = [(scale.steps + 2) * scale.short_side**2 for scale in scales]
    change: Tensor | None = None
    for index, scale in enumerate(scales):
        part = sub_progress(progress, sum(costs[:index]) / sum(costs), sum(costs[: index + 1]) / sum(costs))
        small = resize_image(image, short_side=scale.short_side)
        start = small if change is None else (small + _enlarged(change, small)).clamp(0, 1)
        try:
            change = _optimize(settings, job, start, scale, part, preview) - small
        except Exception as error:
            if not is_out_of_memory(error) or change is None:
                raise
            size = f"{small.shape[-1]}x{small.shape[-2]}"
        else:
            continue
        empty_cache()  # after the except block: the error holds on to what the failed attempt allocated
        logger.warning("refinement: no memory for steps at %s pixels; the coarser result is enlarged", size)
        break
    assert change is not None
    return (image + _enlarged(change, image)).clamp(0, 1)


def _enlarged(change: Tensor, like: Tensor) -> Tensor:
    """Differences of pixels at the size of a larger picture."""
    if change.shape == like.shape:
        return change
    return F.interpolate(change, size=like.shape[-2:], mode="bicubic")


def _optimize(
    settings: _Settings,
    job: _Job,
    start: Tensor,
    scale: Scale,
    progress: ProgressCallback | None,
    preview: Callable[[Tensor], None] | None,
) -> Tensor:
    """(1, 3, h, w) in [0, 1] after Adam's steps at this size."""
    with _watched(settings.vgg, progress, scale.steps + 2) as watch, torch.enable_grad(), disable_tf32(start.device):
        target = _make_target(settings, job, start)
        watch.step = 2
        pixels = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([pixels], lr=scale.rate, betas=(0.9, 0.99))
        for step in range(scale.steps):
            optimizer.param_groups[0]["lr"] = scale.rate * (1 - 0.7 * step / scale.steps)
            optimizer.zero_grad()
            _loss(settings, target, pixels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            watch.step += 1
            if preview is not None:
                preview(pixels.detach().clamp(0, 1))
    return pixels.detach().clamp(0, 1)


@dataclass
class _Watch:
    """How far the steps of one scale are, for the progress callback."""

    progress: ProgressCallback
    steps: int
    step: int = 0

    def report(self, *_: object) -> None:
        self.progress(min(1.0, self.step / self.steps))


@contextmanager
def _watched(vgg: VGGEncoder, progress: ProgressCallback | None, steps: int) -> Iterator[_Watch]:
    """Calls `progress` before each layer, so that it can stop the work at any size within a second."""
    watch = _Watch(progress or (lambda done: None), steps)
    hooks = [layer.register_forward_pre_hook(watch.report) for layer in vgg.layers.values()] if progress else []
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


def _features(settings: _Settings, picture: Tensor) -> Features:
    """relu1_1 to relu5_1 of (1, 3, H, W)."""
    large = picture.shape[-1] * picture.shape[-2] > KEPT_PIXELS
    with autocast(picture.device.type, dtype=settings.dtype, enabled=settings.dtype != torch.float32):
        features: Features = settings.vgg(
            picture.contiguous(memory_format=torch.channels_last), recompute=large and picture.requires_grad
        )
    return features


class _Target(NamedTuple):
    """What a picture's features should be at one size.

    local: level -> (1, C, H, W) float32. mean, std: level -> (1, C). positions: level -> (1, 1, H, W), how much each
    position counts, summing to 1, or None where all count alike. shapes: normalised relu4_1 of the content.
    """

    local: Features
    mean: Features
    std: Features
    positions: dict[str, Tensor | None]
    shapes: Tensor


@torch.no_grad()
def _make_target(settings: _Settings, job: _Job, start: Tensor) -> _Target:
    """The target at the size of `start`; styles are resized to its short side."""
    content = _features(settings, resize_image(job.content, size=(start.shape[-2], start.shape[-1])))
    mask = None if job.mask is None else resize_mask(job.mask, (start.shape[-2], start.shape[-1]))
    positions = {level: position_weights(mask, content[level]) for level in LEVELS}
    local = {level: torch.zeros_like(content[level], dtype=torch.float32) for level in LOCAL_LEVELS}
    mean = {level: content[level].new_zeros(content[level].shape[:2], dtype=torch.float32) for level in GLOBAL_LEVELS}
    std = {level: torch.zeros_like(mean[level]) for level in GLOBAL_LEVELS}
    for style, style_mask, weight in zip(job.styles, job.style_masks, job.weights, strict=True):
        small = resize_image(style, short_side=max(MIN_SIDE, min(start.shape[-2:])))
        small_mask = None if style_mask is None else resize_mask(style_mask, (small.shape[-2], small.shape[-1]))
        features = _features(settings, small)
        for level in LOCAL_LEVELS:
            local[level] += weight * attention_target(
                content, features, level, logit_scale=LOGIT_SCALE / settings.temperature, style_mask=small_mask
            )
        for level in GLOBAL_LEVELS:
            moments = weighted_mean_std(features[level], position_weights(small_mask, features[level]))
            mean[level] += weight * moments[0]
            std[level] += weight * moments[1]
    if settings.strength < 1:
        for level in GLOBAL_LEVELS:
            own_mean, own_std = weighted_mean_std(content[level], positions[level])
            mean[level] = torch.lerp(own_mean, mean[level], settings.strength)
            std[level] = torch.lerp(own_std, std[level], settings.strength)
        local = {level: torch.lerp(content[level].float(), x, settings.strength) for level, x in local.items()}
    return _Target(local, mean, std, positions, normalize_channels(content[CONTENT_LEVEL]))


def _loss(settings: _Settings, target: _Target, picture: Tensor) -> Tensor:
    """Both losses relative to the size of what they compare with, so that every level and style weighs alike."""
    features = _features(settings, picture)
    terms = []
    for level, wanted in target.local.items():
        error = (features[level].float() - wanted).square().mean(dim=1, keepdim=True)
        positions = target.positions[level]
        terms.append(LOCAL_WEIGHT * (error.mean() if positions is None else (error * positions).sum()) / _size(wanted))
    for level, wanted in target.mean.items():
        mean, std = weighted_mean_std(features[level], target.positions[level])
        terms.append(GLOBAL_WEIGHT * F.mse_loss(mean, wanted) / _size(wanted))
        terms.append(GLOBAL_WEIGHT * F.mse_loss(std, target.std[level]) / _size(target.std[level]))
    if settings.content_weight:
        shapes = normalize_channels(features[CONTENT_LEVEL])
        terms.append(settings.content_weight * F.mse_loss(shapes, target.shapes))
    right, down = picture[..., 1:] - picture[..., :-1], picture[..., 1:, :] - picture[..., :-1, :]
    terms.append(SMOOTHNESS_WEIGHT * (right.square().mean() + down.square().mean()))
    terms.append(RANGE_WEIGHT * (picture - picture.clamp(0, 1)).square().mean())
    return torch.stack(terms).sum()


def _size(wanted: Tensor) -> Tensor:
    """Variance of a target, with a floor for flat styles, whose features hardly vary."""
    return wanted.var() + 0.01 * wanted.square().mean() + FLAT_VARIANCE
