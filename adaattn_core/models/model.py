"""A whole model: encoder, attention fusion, decoder, and the frozen config that rebuilds it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .decoder import Decoder
from .encoder import LEVELS, Features, VGGEncoder
from .fusion import FusedFeatures, MultiLevelFusion


class StyleTransferModel(nn.Module):
    """AdaAttN: `encoder`, `fusion` and `decoder`, each usable alone.

    Args:
        config: shapes; see ModelConfig.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        skip = len(config.levels) > 1
        self.encoder = VGGEncoder(config.channels, config.encoder_convs)
        self.fusion = MultiLevelFusion(
            config.channels,
            config.levels,
            config.projection_channels,
            config.similarity,
            config.upsample,
            config.style_cells,
        )
        self.decoder = Decoder(config.channels, config.decoder_convs, skip, config.upsample)

    @property
    def deepest(self) -> str:
        """Deepest encoder level the model reads."""
        return max(self.config.levels, key=LEVELS.index)

    @property
    def deep_modules(self) -> list[nn.Module]:
        """What the picture needs for the levels below relu3_1 alone; none in a model with attention at one level."""
        if self.decoder.deep is None:
            return []
        names = list(self.encoder.layers)
        below = [self.encoder.layers[name] for name in names[names.index("conv3_1") + 1 :]]
        attention = [self.fusion.attention[level] for level in self.config.levels[1:]]
        return [*below, *attention, self.fusion.merge_conv, self.decoder.deep]

    @property
    def precision(self) -> torch.dtype:
        """What `set_precision` chose."""
        return next(self.decoder.parameters()).dtype

    def set_precision(self, dtype: torch.dtype) -> StyleTransferModel:
        """Choose the precision: what follows attention in `dtype`, all that leads to it in float32 at least.

        The softmax has no 1/sqrt(K): logits of several hundred, whose rounding in bfloat16 sends a position to another
        part of the style. Measured on pictures in examples/ (benchmarks/precision.py), built-in model: the encoder in
        bfloat16 moves pixels by up to 69/255, decoder and merge by 3.4; the merge and the decoder's deepest
        convolutions, which is what bfloat16 means, by 1.6. float16 means all but the last convolution: .4.
        """
        self.to(torch.promote_types(dtype, torch.float32))
        self.decoder.set_precision(dtype)
        if len(self.config.levels) > 1:
            self.fusion.merge_conv.to(dtype)
        return self

    def encode(self, images: Tensor) -> Features:
        """(B, 3, H, W) in [0, 1] -> the features that attention reads, without gradients; see `VGGEncoder.encode`."""
        return self.encoder.encode(images, self.config.levels)

    def decode(self, fused: FusedFeatures, size: tuple[int, int]) -> Tensor:
        """(B, 3, height, width), not clamped."""
        picture: Tensor = self.decoder(fused, size)
        return picture

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """Content repainted at full strength, for training; `stylize` is what users call.

        Args:
            content, style: (B, 3, H, W) in [0, 1]; sizes may differ.

        Returns:
            (B, 3, H, W), content's size, not clamped.
        """
        features = self.encoder(content, self.deepest)
        painted = self.fusion.encode_style(self.encoder(style, self.deepest))
        return self.decode(self.fusion(features, painted), (content.shape[-2], content.shape[-1]))

    def forward_pairs(self, content: Tensor, style: Tensor, contents: Tensor, styles: Tensor) -> Tensor:
        """Content `contents[i]` repainted in style `styles[i]`, for training: each picture is encoded once.

        Args:
            content, style: (B, 3, H, W) in [0, 1], each of any batch; sizes may differ.
            contents, styles: (N,) int64, indices into the two batches.

        Returns:
            (N, 3, H, W), content's size, not clamped.
        """
        features = {level: x[contents] for level, x in self.encoder(content, self.deepest).items()}
        painted = self.fusion.encode_style(self.encoder(style, self.deepest))
        chosen = {level: one.select(styles) for level, one in painted.items()}
        return self.decode(self.fusion(features, chosen), (content.shape[-2], content.shape[-1]))
