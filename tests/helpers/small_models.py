"""Narrow models with random weights, and random pictures: a test with them takes milliseconds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adaattn_core.checkpoints.model_file import build_on_meta, prepare_for_inference
from adaattn_core.models.config import IMAGE_LEVELS, VIDEO_LEVELS, ModelConfig
from adaattn_core.models.model import StyleTransferModel

__all__ = ["SMALL", "SMALL_VIDEO", "picture", "small_model"]

SMALL = ModelConfig(
    channels=(6, 8, 10, 12, 12),  # different where they may be: a level mistaken for another is an error
    encoder_convs=(2, 1, 2, 1, 1),
    decoder_convs=(2, 1, 2),
    levels=IMAGE_LEVELS,
    projection_channels=(5, 7, 9),
)
SMALL_VIDEO = ModelConfig(
    channels=SMALL.channels,
    encoder_convs=SMALL.encoder_convs,
    decoder_convs=SMALL.decoder_convs,
    levels=VIDEO_LEVELS,
    similarity="cosine",
)


def small_model(seed: int = 0, config: ModelConfig = SMALL) -> StyleTransferModel:
    """A model ready to stylise, whose pictures are textured and stay inside [0, 1]: no clamp hides an error.

    Weights are standard normals of `seed` over the root of the fan-in, times sqrt 2 where a ReLU follows; the last
    convolution is weak and its bias grey.
    """
    generator = torch.Generator().manual_seed(seed)
    model = build_on_meta(config).to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            attends = "query_proj" in name or "key_proj" in name
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 400  # a bias: 0.05
            gain = math.sqrt(2) if parameter.ndim > 1 and not attends else 1.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain / math.sqrt(fan_in))
        last = [module for module in model.decoder.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        last.weight.mul_(0.3)
        assert last.bias is not None
        last.bias.fill_(0.5)
    return prepare_for_inference(model)


def picture(height: int, width: int, batch: int = 1, seed: int = 0) -> Tensor:
    """(batch, 3, height, width) in [0, 1]: noise over random colour patches of 8 pixels."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.rand(batch, 3, -(-height // 8), -(-width // 8), generator=generator)
    patches = patches.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)[..., :height, :width]
    return 0.7 * patches + 0.3 * torch.rand(batch, 3, height, width, generator=generator)
