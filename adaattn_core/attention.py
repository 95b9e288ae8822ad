"""AdaAttN at one level: which style positions does each content position look at, and what statistics are there.

Source: Liu et al., ICCV 2021, section 3.2. Letters as in moments.py; P projection channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn import Conv2d

from .encoder import LEVELS, Features, on_grid
from .moments import BLOCK_BYTES, Progress, Similarity, attention_moments, normalize_channels


class StyleLevel(NamedTuple):
    """What attention keeps of a style at one level; independent of the content, so made once and reused.

    key: (B, Ns, P). value: (B, Ns, C). mask: (B, Ns) bool, True where the style may be looked at, or None.
    """

    key: Tensor
    value: Tensor
    mask: Tensor | None


def stacked_key(features: Features, level: str) -> Tensor:
    """All levels down to `level`, each resized to its grid and normalised, concatenated over channels.

    Differs from the paper: nearest resizing, and every level is normalised before the concatenation, because the
    published weights were trained so.

    Args:
        features: level name -> (B, C, H, W), at least the levels down to `level`.

    Returns:
        (B, sum of C, H, W) float32 on the grid of `level`.
    """
    levels = LEVELS[: LEVELS.index(level) + 1]
    return torch.cat([normalize_channels(on_grid(features, name, level)) for name in levels], dim=1)


def positions_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A pixel mask on a level's grid: (B, 1, H, W) in [0, 1] -> (B, h * w) bool, resized nearest as published.

    Differs from the published code: a mask so small that nearest resizing steps over all of it keeps the positions
    that it touches, where the published code attends to everything.
    """
    mask = mask.float()
    nearest, touched = F.interpolate(mask, size=size) > 0.5, F.adaptive_max_pool2d(mask, size) > 0.5
    return rearrange(torch.where(nearest.any(dim=(2, 3), keepdim=True), nearest, touched), "b 1 h w -> b (h w)")


def _sample(positions: int, count: int, allowed: Tensor | None, generator: torch.Generator) -> Tensor:
    """`count` different positions at random; where chance meets nothing of a small mask, its positions come first."""
    order = torch.randperm(positions, generator=generator)
    if allowed is not None and not bool(allowed.cpu()[:, order[:count]].any(dim=1).all()):
        order = order[allowed.cpu().any(dim=0)[order].logical_not().int().argsort(stable=True)]
    return order[:count]


class AdaAttention(nn.Module):
    """Adaptive attention normalisation of one level: f, g and h of the paper.

    Args:
        key_channels: K, channels of the stacked key.
        value_channels: C, channels of the level.
        projection_channels: P, width of queries and keys; None keeps K, as published.
        similarity: "softmax" (image model) or "cosine" (video model).
    """

    def __init__(
        self,
        key_channels: int,
        value_channels: int,
        projection_channels: int | None = None,
        similarity: Similarity = "softmax",
    ) -> None:
        super().__init__()
        projection_channels = projection_channels or key_channels
        self.similarity: Similarity = similarity
        self.query_proj = Conv2d(key_channels, projection_channels, kernel_size=1)
        self.key_proj = Conv2d(key_channels, projection_channels, kernel_size=1)
        self.value_proj = Conv2d(value_channels, value_channels, kernel_size=1)

    def initialize(self) -> None:
        """f = g a scaled orthogonal projection and h the identity: like attends to like from the first step, softly.

        The logits start as those of scaled dot-product attention, q . k / sqrt(K). With the unscaled product each
        position would copy one style position, mostly a wrong one: noise, which the decoder learns to ignore, and
        the style with it. Training sharpens what deserves it. Uses the global generator, as torch's initialisers do.
        """
        projection, keys = self.query_proj.weight.shape[:2]
        nn.init.orthogonal_(self.query_proj.weight, gain=(keys / projection) ** 0.5 * keys**-0.25)
        with torch.no_grad():
            self.key_proj.weight.copy_(self.query_proj.weight)
        nn.init.dirac_(self.value_proj.weight)
        for conv in (self.query_proj, self.key_proj, self.value_proj):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def encode_style(
        self,
        style_key: Tensor,
        style_value: Tensor,
        mask: Tensor | None = None,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> StyleLevel:
        """Keys and values of a style.

        Args:
            style_key: (B, K, H, W) stacked key.
            style_value: (B, C, H, W) features of this level.
            mask: (B or 1, 1, h, w) in [0, 1], any size, or None: where the style may be looked at.
            samples: keep that many randomly chosen positions, as the published code does; None keeps all.
            generator: source of that choice (on the CPU), required with `samples`.
        """
        size = (style_key.shape[-2], style_key.shape[-1])
        key = rearrange(self.key_proj(style_key.to(self.key_proj.weight.dtype)), "b k h w -> b (h w) k")
        value = rearrange(self.value_proj(style_value), "b c h w -> b (h w) c")
        allowed = None if mask is None else positions_mask(mask, size).expand(len(key), -1)
        if samples is not None and samples < key.shape[1]:
            if generator is None:
                raise ValueError("sampled attention needs a torch.Generator, so that the same seed gives one picture")
            chosen = _sample(key.shape[1], samples, allowed, generator).to(key.device)
            key, value = key[:, chosen], value[:, chosen]
            allowed = None if allowed is None else allowed[:, chosen]
        return StyleLevel(key, value, allowed)

    def query(self, content_key: Tensor) -> Tensor:
        """(B, K, H, W) stacked key of the content -> (B, H W, P): what looks for style positions like itself."""
        query: Tensor = self.query_proj(content_key.to(self.query_proj.weight.dtype))
        return rearrange(query, "b k h w -> b (h w) k")

    def statistics(
        self,
        query: Tensor,
        grid: tuple[int, int],
        style: StyleLevel,
        *,
        content_mask: Tensor | None = None,
        temperature: float = 1.0,
        block_bytes: int = BLOCK_BYTES,
        progress: Progress | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attention-weighted mean and standard deviation of the style for each content position.

        Args:
            query: (B, H W, P) result of `query`. The stacked key, which is as large, can be let go by then.
            grid: (H, W).
            style: result of `encode_style`; its batch is B or 1.
            content_mask: (B or 1, 1, h, w) or None: where the style's mask applies.
            progress: see `attention_moments`.

        Returns:
            mean, std: each (B, C, H, W) in float32.
        """
        batch = len(query)
        applies = None if content_mask is None else positions_mask(content_mask, grid).expand(batch, -1)
        mean, std = attention_moments(
            query,
            style.key.expand(batch, -1, -1),
            style.value.expand(batch, -1, -1),
            similarity=self.similarity,
            temperature=temperature,
            content_mask=applies,
            style_mask=None if style.mask is None else style.mask.expand(batch, -1),
            block_bytes=block_bytes,
            progress=progress,
        )
        as_map = "b (h w) c -> b c h w"
        return rearrange(mean, as_map, h=grid[0]), rearrange(std, as_map, h=grid[0])
