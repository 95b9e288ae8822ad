"""The losses of a training step, on the features of a VGG-19 that is never trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DataError as DataError
from ..models.encoder import LEVELS, Features, VGGEncoder
from ..models.model import StyleTransferModel
from .config import Stage, TrainConfig
from .dataset import seeded_generator
from .losses import (
    checkerboard_loss,
    color_loss,
    content_loss,
    global_style_loss,
    identity_loss,
    image_similarity_loss,
    local_feature_loss,
    relative_style_loss,
)

SIMILARITY_SAMPLES = 1024
"""Positions of a frame that the image similarity loss looks at: all of a 128-pixel crop at relu3_1."""


class MicroBatch(NamedTuple):
    """A part of a batch: items part, part + parts, part + 2 parts, ... What its mean losses count in the batch's."""

    own: int
    """Self pairs kept in the style stage, which are the part's first items."""
    of_items: float
    """Share of the batch's items."""
    of_own: float
    """Share of the batch's kept self pairs."""
    of_pictures: float
    """Share of the pictures that the batch's other items paint; 1 / parts unless the self pairs are uneven."""

    def share(self, loss: str, stage: Stage) -> float:
        if stage != "style" or loss == "identity":
            return self.of_items
        return self.of_own if loss == "pixel" else self.of_pictures


def part_of_batch(config: TrainConfig, part: int, parts: int) -> MicroBatch:
    """The part of that number, among `parts` of one size.

    >>> part_of_batch(TrainConfig("", "", "", "", batch=4, self_pairs=0.25), part=0, parts=2)
    MicroBatch(own=1, of_items=0.5, of_own=1.0, of_pictures=0.3333333333333333)
    """
    own = [len(range(number, config.self_items, parts)) for number in range(parts)]
    others = [config.batch // parts - count for count in own]
    pictures = [count * min(config.styles_per_content, count) for count in others]
    of_own, of_pictures = (counts[part] / max(1, sum(counts)) for counts in (own, pictures))
    return MicroBatch(own[part], 1 / parts, of_own, of_pictures)


def loss_names(config: TrainConfig, stage: Stage) -> tuple[str, ...]:
    """Losses of a whole batch; a part of it may have only some of them."""
    if stage != "style":
        return ("distill",) if stage == "distill" else ("pixel",)
    style = ["global", "local", *(name for name in ("content", "color", "mesh") if config.weight(name, stage))]
    if config.paints_frames:
        style.append("similarity")
    own = [*(["pixel"] if config.self_items else []), *(["identity"] if config.identity_weight else [])]
    return (*own, *(style if config.self_items < config.batch else ()))


def part_losses(
    config: TrainConfig,
    step: int,
    model: StyleTransferModel,
    adapters: Iterable[nn.Module],
    vgg: VGGEncoder,
    images: tuple[Tensor, Tensor, Tensor],
    own: int,
) -> dict[str, Tensor]:
    """Losses of a part of a batch by name, not weighted: each a mean over the items it is made of.

    Args:
        config, step: say which losses.
        model, adapters: what is trained.
        vgg: the loss network.
        images: content, style, target, (B, 3, H, W) each, in [0, 1]; of a pair of frames, target is the second.
        own: in the style stage, so many items, the first ones, are self pairs.
    """
    content, style, target = images
    stage = config.stage(step)[0]
    if stage == "distill":
        return {"distill": distill_loss(model.encoder, adapters, vgg, torch.cat([content, style]))}
    if stage == "reconstruct":
        return {"pixel": F.l1_loss(model(content, style).float(), target)}
    contents, styles = pair_indices(len(content), own, config.styles_per_content)
    if config.paints_frames and own < len(content):
        seconds = contents[own:] - own + len(content)
        content = torch.cat([content, target[own:]])
        contents, styles = torch.cat([contents, seconds]), torch.cat([styles, styles[own:]])
    picture = model.forward_pairs(content, style, contents, styles).float()
    losses = {"pixel": F.l1_loss(picture[:own], target[:own])} if own else {}
    if config.identity_weight:
        losses["identity"] = identity_term(model, vgg, config, torch.cat([images[0], style]))
    if own < len(picture):
        losses |= style_losses(vgg, config, step, content, style, picture[own:], contents[own:], styles[own:])
    return losses


def distill_loss(encoder: VGGEncoder, adapters: Iterable[nn.Module], vgg: VGGEncoder, images: Tensor) -> Tensor:
    """Squared distance of an encoder's features, led through an adapter for each level, to the VGG-19's."""
    with torch.no_grad():
        wanted = vgg(images)
    found = encoder(images)
    terms = [
        F.mse_loss(adapter(found[level]).float(), wanted[level].float())
        for adapter, level in zip(adapters, LEVELS, strict=True)
    ]
    return torch.stack(terms).sum()


def style_losses(
    vgg: VGGEncoder,
    config: TrainConfig,
    step: int,
    content: Tensor,
    style: Tensor,
    picture: Tensor,
    contents: Tensor,
    styles: Tensor,
) -> dict[str, Tensor]:
    """Losses of the pictures, by name, not weighted: each a mean over pictures.

    Args:
        vgg: the loss network.
        config: says which losses, on which levels.
        step: with the config's seed, where the sampled losses look.
        content, style: (B, 3, H, W) in [0, 1].
        picture: (P, 3, H, W); picture i is content `contents[i]` in style `styles[i]`. Of pairs of frames, the first
            frames come first and the second ones after them, in the same order.
        contents, styles: (P,) indices of a content and a style.
    """
    deepest = deepest_level(config)
    with torch.no_grad():
        wanted = vgg(torch.cat([content, style]), deepest)
    content_features: Features = {level: x[: len(content)][contents] for level, x in wanted.items()}
    style_features: Features = {level: x[len(content) :][styles] for level, x in wanted.items()}
    found = vgg(picture, deepest)
    generator = seeded_generator(config.seed, step)
    losses = {
        "global": (relative_style_loss if config.relative_style else global_style_loss)(
            found, style_features, config.global_levels
        ),
        "local": local_feature_loss(
            found, content_features, style_features, config.local_levels, config.local_samples or None, generator,
            config.model_config().similarity,
        ),
    }  # fmt: skip
    if config.content_weight:
        losses["content"] = content_loss(found, content_features, config.content_levels)
    if config.color_weight:
        losses["color"] = color_loss(picture, style[styles])
    if config.mesh_weight:
        losses["mesh"] = checkerboard_loss(picture)
    if config.paints_frames:
        losses["similarity"] = image_similarity_loss(
            split_frames(found), split_frames(content_features), config.similarity_levels, SIMILARITY_SAMPLES, generator
        )
    return losses


def deepest_level(config: TrainConfig) -> str:
    """Of those that the style stage's losses look at."""
    levels = [*config.global_levels, *config.local_levels]
    levels += config.content_levels if config.content_weight else ()
    levels += config.similarity_levels if config.paints_frames else ()
    return max(levels, key=LEVELS.index)


def split_frames(features: Features) -> tuple[Features, Features]:
    """(2 P, ...) -> features of the first frames, and of the second ones, (P, ...) each."""
    halves = {level: x.chunk(2) for level, x in features.items()}
    return {level: half[0] for level, half in halves.items()}, {level: half[1] for level, half in halves.items()}


def identity_term(model: StyleTransferModel, vgg: VGGEncoder, config: TrainConfig, images: Tensor) -> Tensor:
    """`identity_loss` of pictures painted in themselves, on the levels of the global style loss."""
    alike = torch.arange(len(images))
    picture = model.forward_pairs(images, images, alike, alike).float()
    deepest = max(config.global_levels, key=LEVELS.index)
    with torch.no_grad():
        wanted = vgg(images, deepest)
    found = vgg(picture, deepest)
    return identity_loss(
        picture, images, {level: found[level] for level in dict.fromkeys(config.global_levels)}, wanted
    )


def pair_indices(batch: int, own: int, styles_per_content: int) -> tuple[Tensor, Tensor]:
    """Which contents and which styles of a batch make pictures together: its `own` first items with themselves, each
    of the others with its own style and with those of the items after it.

    >>> pair_indices(3, 1, 2)
    (tensor([0, 1, 2, 1, 2]), tensor([0, 1, 2, 2, 1]))
    """
    others = torch.arange(batch - own)
    turns = min(styles_per_content, len(others))
    contents = [torch.arange(own), *[others + own] * turns]
    styles = [torch.arange(own), *(others.roll(-turn) + own for turn in range(turns))]
    return torch.cat(contents), torch.cat(styles)
