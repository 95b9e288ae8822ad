"""The losses of one training step, computed with a VGG-19 that is never trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.encoder import LEVELS, Features, VGGEncoder
from ..models.model import StyleTransferModel
from .config import Stage, TrainConfig
from .dataset import Batch, seeded_generator
from .losses import (
    PATCH_LEVELS,
    LocalTarget,
    checkerboard_loss,
    color_loss,
    content_loss,
    global_style_loss,
    identity_loss,
    image_similarity_loss,
    local_feature_loss,
    patch_loss,
    relative_style_loss,
    teacher_loss,
)

TEACHER_LEVELS = LEVELS[1:4]
"""VGG-19 levels on which a result is compared with the teacher's picture: those that show strokes."""
SIMILARITY_SAMPLES = 1024
"""Positions of a frame that the image similarity loss samples: all positions of relu3_1 of a 128-pixel crop."""


class Networks(NamedTuple):
    """The networks of a training step.

    model: the model that is trained. adapters: a 1x1 convolution for each level, from the model's encoder to the
    VGG-19, trained in the distill stage and not saved in the model file. vgg: the VGG-19 of the losses. teacher: a
    model whose pictures the results should resemble.
    """

    model: StyleTransferModel
    adapters: nn.ModuleList
    vgg: VGGEncoder
    teacher: StyleTransferModel | None = None


class LossShares(NamedTuple):
    """Factors that turn the mean losses of one part of a batch into its share of the mean over the whole batch."""

    items: float
    """Share of the batch's items."""
    self_pairs: float
    """Share of the self pairs of the style stage."""
    pictures: float
    """Share of the pictures stylised from the other items; 1 / parts unless the self pairs are unevenly distributed."""

    def of(self, loss: str, stage: Stage) -> float:
        """The factor of a loss."""
        if stage != "style" or loss == "identity":
            return self.items
        return self.self_pairs if loss == "pixel" else self.pictures


def loss_shares(config: TrainConfig, part: int, parts: int) -> LossShares:
    """The shares of items part, part + parts, part + 2 parts, ... of a batch in the style stage.

    >>> config = TrainConfig(content="", style="", vgg="", output="", batch=4, self_pairs=0.25)
    >>> loss_shares(config, part=0, parts=2)
    LossShares(items=0.5, self_pairs=1.0, pictures=0.3333333333333333)
    """
    self_pairs = [len(range(number, config.n_self_pairs, parts)) for number in range(parts)]
    others = [config.batch // parts - count for count in self_pairs]
    pictures = [count * min(config.styles_per_content, count) for count in others]
    return LossShares(
        items=1 / parts,
        self_pairs=self_pairs[part] / max(1, sum(self_pairs)),
        pictures=pictures[part] / max(1, sum(pictures)),
    )


def loss_names(config: TrainConfig, stage: Stage) -> tuple[str, ...]:
    """Names of the losses of a whole batch; a part of it may have only some of them."""
    if stage != "style":
        return ("distill",) if stage == "distill" else ("pixel",)
    style = ["global", "local", *(name for name in ("patch", "content", "color", "mesh") if config.weight(name, stage))]
    if config.uses_frame_pairs:
        style.append("similarity")
    if config.teacher and config.teacher_weight:
        style.append("teacher")
    others = [*(["pixel"] if config.n_self_pairs else []), *(["identity"] if config.identity_weight else [])]
    return (*others, *(style if config.n_self_pairs < config.batch else ()))


def batch_losses(config: TrainConfig, step: int, networks: Networks, batch: Batch) -> dict[str, Tensor]:
    """Losses of a batch, or of a part of it, by name and without weights: each a mean over the items that it covers.

    Args:
        config, step: determine which losses are computed.
        networks: on the device of the batch.
        batch: its `target` is the second frame where the model is trained on pairs of frames.
    """
    stage = config.stage(step)[0]
    if stage == "distill":
        return {"distill": distill_loss(networks, torch.cat([batch.content, batch.style]))}
    if stage == "reconstruct":
        return {"pixel": F.l1_loss(networks.model(batch.content, batch.style).float(), batch.target)}
    count = batch.n_self_pairs
    pairs = stylized_pairs(config, networks.model, batch)
    losses = {"pixel": F.l1_loss(pairs.pictures[:count], batch.target[:count])} if count else {}
    if config.identity_weight:
        losses["identity"] = identity_term(networks, torch.cat([batch.content, batch.style]), config.global_levels)
    if count < len(pairs.pictures):
        losses |= style_losses(config, step, networks, pairs.without_first(count))
    return losses


class StylizedPairs(NamedTuple):
    """Results of the model: `pictures[i]` is `contents[content_indices[i]]` in the style `styles[style_indices[i]]`.

    contents, styles: (B, 3, H, W) in [0, 1]. pictures: (P, 3, H, W). content_indices, style_indices: (P,). Of pairs of
    frames, all first frames precede all second frames, in the same order.
    """

    contents: Tensor
    styles: Tensor
    pictures: Tensor
    content_indices: Tensor
    style_indices: Tensor

    def without_first(self, count: int) -> StylizedPairs:
        """The same without the first `count` pictures."""
        pictures, content_indices, style_indices = (values[count:] for values in self[2:])
        return StylizedPairs(self.contents, self.styles, pictures, content_indices, style_indices)


def stylized_pairs(config: TrainConfig, model: StyleTransferModel, batch: Batch) -> StylizedPairs:
    """The pictures of a batch of the style stage: its self pairs, then all other pairs, then their second frames."""
    size, count = len(batch.content), batch.n_self_pairs
    contents = batch.content
    content_indices, style_indices = pair_indices(size, count, config.styles_per_content)
    if config.uses_frame_pairs and count < size:
        second_frames = content_indices[count:] - count + size
        contents = torch.cat([contents, batch.target[count:]])
        content_indices = torch.cat([content_indices, second_frames])
        style_indices = torch.cat([style_indices, style_indices[count:]])
    pictures = model.forward_pairs(contents, batch.style, content_indices, style_indices).float()
    return StylizedPairs(contents, batch.style, pictures, content_indices, style_indices)


def pair_indices(batch: int, n_self_pairs: int, styles_per_content: int) -> tuple[Tensor, Tensor]:
    """Indices of the contents and the styles that are combined.

    The first `n_self_pairs` items are combined with themselves. Each of the others is combined with its own style and
    with the styles of the items after it, `styles_per_content` in all or as many as there are.

    >>> pair_indices(3, 1, 2)
    (tensor([0, 1, 2, 1, 2]), tensor([0, 1, 2, 2, 1]))
    """
    others = torch.arange(batch - n_self_pairs)
    turns = min(styles_per_content, len(others))
    contents = [torch.arange(n_self_pairs), *[others + n_self_pairs] * turns]
    styles = [torch.arange(n_self_pairs), *(others.roll(-turn) + n_self_pairs for turn in range(turns))]
    return torch.cat(contents), torch.cat(styles)


def distill_loss(networks: Networks, images: Tensor) -> Tensor:
    """Squared distance between the encoder's features after the adapters and those of the VGG-19, over all levels."""
    with torch.no_grad():
        targets = networks.vgg(images)
    features = networks.model.encoder(images)
    terms = [
        F.mse_loss(adapter(features[level]).float(), targets[level].float())
        for adapter, level in zip(networks.adapters, LEVELS, strict=True)
    ]
    return torch.stack(terms).sum()


def style_losses(config: TrainConfig, step: int, networks: Networks, pairs: StylizedPairs) -> dict[str, Tensor]:
    """Losses of stylised pictures, by name and without weights: each a mean over the pictures.

    Args:
        config: determines which losses are computed, and on which levels.
        step: with the config's seed, determines the positions that the sampled losses use.
        networks: the VGG-19 of the losses, and the teacher.
        pairs: the pictures with their contents and styles.
    """
    vgg, deepest = networks.vgg, deepest_level(config)
    with torch.no_grad():
        sources = vgg(torch.cat([pairs.contents, pairs.styles]), deepest)
    size = len(pairs.contents)
    content: Features = {level: x[:size][pairs.content_indices] for level, x in sources.items()}
    style: Features = {level: x[size:][pairs.style_indices] for level, x in sources.items()}
    stylized = vgg(pairs.pictures, deepest)
    generator = seeded_generator(config.seed, step)
    style_loss = relative_style_loss if config.relative_style else global_style_loss
    attention = networks.model.config
    target = LocalTarget(attention.similarity, attention.logit_scale, config.local_samples or None, generator)
    losses = {
        "global": style_loss(stylized, style, config.global_levels),
        "local": local_feature_loss(
            stylized, content, style, config.local_levels, target, relative=config.relative_local
        ),
    }
    if config.patch_weight:
        losses["patch"] = patch_loss(stylized, style)
    if config.content_weight:
        losses["content"] = content_loss(stylized, content, config.content_levels)
    if config.color_weight:
        losses["color"] = color_loss(pairs.pictures, pairs.styles[pairs.style_indices])
    if config.mesh_weight:
        losses["mesh"] = checkerboard_loss(pairs.pictures)
    if config.uses_frame_pairs:
        losses["similarity"] = image_similarity_loss(
            split_frames(stylized), split_frames(content), config.similarity_levels, SIMILARITY_SAMPLES, generator
        )
    if networks.teacher is not None and config.teacher_weight:
        losses["teacher"] = teacher_term(networks.teacher, vgg, pairs, stylized)
    return losses


def teacher_term(teacher: StyleTransferModel, vgg: VGGEncoder, pairs: StylizedPairs, stylized: Features) -> Tensor:
    """`teacher_loss` of stylised pictures, with what the teacher makes of the same pairs.

    Args:
        teacher: the model to learn from.
        vgg: the VGG-19 of the losses.
        pairs: the pictures with their contents and styles.
        stylized: VGG-19 features of the pictures down to relu4_1 at least.
    """
    with torch.no_grad():
        targets = teacher.forward_pairs(pairs.contents, pairs.styles, pairs.content_indices, pairs.style_indices)
        targets = targets.float().clamp(0, 1)
        features = vgg(targets, TEACHER_LEVELS[-1])
    return teacher_loss(pairs.pictures, targets, stylized, {level: features[level] for level in TEACHER_LEVELS})


def deepest_level(config: TrainConfig) -> str:
    """The deepest VGG-19 level that a loss of the style stage uses."""
    levels = [*config.global_levels, *config.local_levels]
    levels += PATCH_LEVELS if config.patch_weight else ()
    levels += config.content_levels if config.content_weight else ()
    levels += config.similarity_levels if config.uses_frame_pairs else ()
    levels += TEACHER_LEVELS if config.teacher and config.teacher_weight else ()
    return max(levels, key=LEVELS.index)


def split_frames(features: Features) -> tuple[Features, Features]:
    """Split features of 2 P pictures into those of the P first frames and those of the P second frames."""
    halves = {level: x.chunk(2) for level, x in features.items()}
    return {level: half[0] for level, half in halves.items()}, {level: half[1] for level, half in halves.items()}


def identity_term(networks: Networks, images: Tensor, levels: Sequence[str]) -> Tensor:
    """`identity_loss` of images stylised with themselves.

    Args:
        images: (B, 3, H, W) in [0, 1].
        levels: VGG-19 levels to compare.
    """
    indices = torch.arange(len(images))
    pictures = networks.model.forward_pairs(images, images, indices, indices).float()
    deepest = max(levels, key=LEVELS.index)
    with torch.no_grad():
        targets = networks.vgg(images, deepest)
    features = networks.vgg(pictures, deepest)
    return identity_loss(pictures, images, {level: features[level] for level in dict.fromkeys(levels)}, targets)
