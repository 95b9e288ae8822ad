"""The complete model: encoder, attention fusion and decoder."""

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
        config: shapes of all parts; see ModelConfig.
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
            config.logit_scale,
        )
        self.decoder = Decoder(config.channels, config.decoder_convs, skip, config.upsample)

    @property
    def deepest(self) -> str:
        """The deepest encoder level with attention; later convolutions are not run."""
        return max(self.config.levels, key=LEVELS.index)

    @property
    def deep_modules(self) -> list[nn.Module]:
        """Modules that only the levels deeper than relu3_1 use; empty in a one-level model."""
        if self.decoder.deep is None:
            return []
        names = list(self.encoder.layers)
        convs = [self.encoder.layers[name] for name in names[names.index("conv3_1") + 1 :]]
        attention = [self.fusion.attention[level] for level in self.config.levels[1:]]
        return [*convs, *attention, self.fusion.merge_conv, self.decoder.deep]

    @property
    def precision(self) -> torch.dtype:
        """The dtype given to `set_precision`."""
        return next(self.decoder.parameters()).dtype

    def set_precision(self, dtype: torch.dtype) -> StyleTransferModel:
        """Convert the merge convolution and the decoder to `dtype`; encoder and attention stay in float32.

        The softmax has no 1/sqrt(K), so logits reach several hundred, and their rounding in bfloat16 makes content
        positions attend to other style positions. Largest pixel difference to float32, built-in model on pictures in
        examples/ (benchmarks/precision.py): encoder in bfloat16 69/255; merge and complete decoder 3.4/255; merge and
        the decoder's deepest convolutions, as done here, 1.6/255; float16 in all but the last convolution .4/255.

        Args:
            dtype: float32, bfloat16 or float16; float64 converts every part.

        Returns:
            the model itself.
        """
        self.to(torch.promote_types(dtype, torch.float32))
        self.decoder.set_precision(dtype)
        if len(self.config.levels) > 1:
            self.fusion.merge_conv.to(dtype)
        return self

    def encode(self, images: Tensor) -> Features:
        """(B, 3, H, W) in [0, 1] -> the features attention needs, without gradients; see `VGGEncoder.encode`."""
        return self.encoder.encode(images, self.config.levels)

    def decode(self, fused: FusedFeatures, size: tuple[int, int]) -> Tensor:
        """Fused features and the content's (height, width) -> (B, 3, height, width), not clamped."""
        image: Tensor = self.decoder(fused, size)
        return image

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """Content stylized at full strength, for training; for inference see `stylize`.

        Args:
            content, style: (B, 3, H, W) in [0, 1]; sizes may differ.

        Returns:
            (B, 3, H, W), content's size, not clamped.
        """
        features = self.encoder(content, self.deepest)
        style_features = self.fusion.encode_style(self.encoder(style, self.deepest))
        return self.decode(self.fusion(features, style_features), (content.shape[-2], content.shape[-1]))

    def forward_pairs(self, content: Tensor, style: Tensor, contents: Tensor, styles: Tensor) -> Tensor:
        """Content `contents[i]` in style `styles[i]`, for training: each picture is encoded once.

        Args:
            content, style: (B, 3, H, W) in [0, 1], each of any batch; sizes may differ.
            contents, styles: (N,) int64, indices into the two batches.

        Returns:
            (N, 3, H, W), content's size, not clamped.
        """
        features = {level: x[contents] for level, x in self.encoder(content, self.deepest).items()}
        style_features = self.fusion.encode_style(self.encoder(style, self.deepest))
        pairs = {level: kv.select(styles) for level, kv in style_features.items()}
        return self.decode(self.fusion(features, pairs), (content.shape[-2], content.shape[-1]))
