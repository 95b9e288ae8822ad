"""The losses of a training step, on the features of a VGG-19 that is never trained."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import seeded_generator
from .encoder import LEVELS, Features, VGGEncoder
from .losses import content_loss, global_style_loss, local_feature_loss, relative_style_loss
from .train_config import TrainConfig


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
        step: with the config's seed, where the sampled local loss looks.
        content, style: (B, 3, H, W) in [0, 1].
        picture: (P, 3, H, W); picture i is content `contents[i]` in style `styles[i]`.
        contents, styles: (P,) indices of a content and a style.
    """
    content_levels = config.content_levels if config.content_weight else ()
    deepest = max((*config.global_levels, *config.local_levels, *content_levels), key=LEVELS.index)
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
            found, content_features, style_features, config.local_levels, config.local_samples or None, generator
        ),
    }
    if config.content_weight:
        losses["content"] = content_loss(found, content_features, config.content_levels)
    return losses
