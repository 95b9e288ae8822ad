"""The steps of a repainting, one by one: pictures to features, features to a painting, a painting to pixels.

`stylize` runs them one after the other; the ComfyUI nodes are these steps, with their results on the wires between.
All of these hold tensors in tuples, so that they can be moved, cut and weighed as a whole (ComfyUI's cache looks into
tuples, not into dicts).

Letters: B batch, H W pixels. Pictures are RGB float32 in [0, 1]; masks are (B or 1, 1, H, W) float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..models.attention import CHUNK_POSITIONS
from ..models.decoder import Decoder
from ..models.encoder import ATTENTION_LEVELS, Features, VGGEncoder
from ..models.fusion import FusedFeatures, MultiLevelFusion, StyleFeatures
from ..ops.chunked_attention import CHUNK_BYTES
from ..ops.color import keep_color as keep_content_color
from ..runtime.device import disable_tf32
from ..runtime.progress import ProgressCallback
from .chunked import apply_statistics_chunked
from .validation import check_batch, check_picture, check_unit, expand_to_batch, normalize_weights

Attention = Literal["exact", "sampled"]
ATTENTIONS: tuple[str, ...] = get_args(Attention)

SAMPLED_POSITIONS = 4096
"""Style positions that sampled attention keeps on relu3_1: 64 x 64, as in the published code."""


class ModelFingerprint(NamedTuple):
    """What made a result: the fingerprint of its weights tells it from others, its name tells a person."""

    fingerprint: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})"


UNKNOWN = ModelFingerprint()


class ImageFeatures(NamedTuple):
    """What an encoder sees in pictures.

    picture: (B, 3, H, W) the pictures themselves. names, levels: what attention reads of each level, see
    `VGGEncoder.encode`. encoder: which one it was.
    """

    picture: Tensor
    names: tuple[str, ...]
    levels: tuple[Tensor, ...]
    encoder: ModelFingerprint = UNKNOWN

    def as_dict(self) -> Features:
        """Level name -> features, as the model's parts take them."""
        return dict(zip(self.names, self.levels, strict=True))


class StylizedFeatures(NamedTuple):
    """Contents repainted in features: all that it takes to make the pictures.

    fused: what the decoder paints. own: the content's own features merged the same way, None where the strength is 1.
    content: (B, 3, H, W). strength: (1 or B, 1, 1 or H, 1 or W). mask: where to paint, None for everywhere.
    attention: which one it was.
    """

    fused: FusedFeatures
    own: FusedFeatures | None
    content: Tensor
    strength: Tensor
    mask: Tensor | None
    attention: ModelFingerprint = UNKNOWN


def extract_features(
    encoder: VGGEncoder,
    pictures: Tensor,
    levels: Sequence[str] = ATTENTION_LEVELS,
    *,
    role: str = "picture",
    origin: ModelFingerprint = UNKNOWN,
    tile_bytes: int | None = None,
) -> ImageFeatures:
    """Features of pictures, on the encoder's device and in its dtype.

    Args:
        encoder: a VGGEncoder.
        pictures: (B, 3, H, W) floating point, at least 16 pixels a side; values are clamped to [0, 1].
        levels: with attention, shallow to deep.
        role: names the picture in errors.
        origin: of the encoder, kept with the features.
        tile_bytes: see `strips.tile_rows`.

    Raises:
        ValueError: a wrong shape or type, a side under 16 pixels, NaN.
    """
    check_picture(pictures, role)
    return encode_checked(encoder, pictures, levels, origin=origin, tile_bytes=tile_bytes)


def encode_checked(
    encoder: VGGEncoder,
    pictures: Tensor,
    levels: Sequence[str] = ATTENTION_LEVELS,
    *,
    origin: ModelFingerprint = UNKNOWN,
    tile_bytes: int | None = None,
) -> ImageFeatures:
    """`extract_features` of pictures that `check_picture` has looked at."""
    weight = encoder.conv0.weight
    with torch.no_grad(), disable_tf32(weight.device):
        pictures = _in_range(pictures.float())
        features = encoder.encode(pictures.to(weight.device, weight.dtype), levels, tile_bytes)
    return ImageFeatures(pictures, tuple(features), tuple(features.values()), origin)


def _in_range(pictures: Tensor) -> Tensor:
    """Clamped to [0, 1]; themselves where they lie there, since a copy of 8K takes 400 MB. An accelerator is not asked
    where they lie: the answer would have to wait for all that it was given to do before."""
    if pictures.device.type != "cpu":
        return pictures.clamp(0, 1)
    low, high = pictures.aminmax()
    return pictures if bool((low >= 0) & (high <= 1)) else pictures.clamp(0, 1)


def encode_style_features(
    fusion: MultiLevelFusion,
    style: ImageFeatures,
    *,
    mask: Tensor | None = None,
    attention: Attention = "exact",
    seed: int = 0,
) -> StyleFeatures:
    """Keys and values of a style: all that attention needs of it, made once and used with many contents.

    Args:
        fusion: a model's attention.
        style: features on its device.
        mask: at the style's size: the part to look at; at least one pixel above 0.5.
        attention: "exact" looks at every style position, "sampled" at 4096 random ones, as the published code does.
        seed: of that choice; the same seed gives the same picture. The global generator is not touched.

    Raises:
        ValueError: an unknown attention, an empty mask.
    """
    if attention not in ATTENTIONS:
        raise ValueError(f"attention is {attention!r}; known are {', '.join(ATTENTIONS)}")
    if mask is not None and not bool((mask > 0.5).flatten(1).any(dim=1).all()):
        raise ValueError("the style mask is empty: no part of the style is left to look at. Paint some of it white.")
    samples = SAMPLED_POSITIONS if attention == "sampled" else None
    with torch.no_grad(), disable_tf32(style.levels[0].device):
        mask = None if mask is None else mask.to(style.levels[0].device)
        return fusion.encode_style(style.as_dict(), mask, samples, torch.Generator().manual_seed(seed))


def transfer(
    fusion: MultiLevelFusion,
    content: ImageFeatures,
    styles: Sequence[StyleFeatures],
    weights: Sequence[float] | None = None,
    *,
    strength: float = 1.0,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    positions: int = CHUNK_POSITIONS,
    progress: ProgressCallback | None = None,
) -> StylizedFeatures:
    """Contents repainted in features, in one style or a mix.

    Args:
        fusion: a model's attention.
        content: features on its device.
        styles: one or more; each of batch 1, for all contents, or B.
        weights: one share per style, scaled to sum 1; None mixes equally.
        strength: 0 the content, 1 the full style. In between, features are mixed level by level.
        temperature: above 0; 1 is neutral, higher mixes more style positions into each content position.
        mask: at the content's size: where to paint. It is kept for `finish`; the attention does not see it, so that a
            border takes its surroundings from the painting and shows no halo.
        chunk_bytes: memory for a block of attention weights.
        positions: content positions whose queries and statistics exist at once.
        progress: told the share that is done; stops the work by raising.

    Raises:
        ValueError: an argument out of its range, or batches that do not pair up.
    """
    check_unit("strength", strength)
    shares = normalize_weights(weights, len(styles))
    for style in styles:
        check_batch(style, len(content.picture))
    return use_up(
        fusion, content.as_dict(), content.picture, [dict(style) for style in styles], shares, strength=strength,
        temperature=temperature, mask=mask, chunk_bytes=chunk_bytes, positions=positions, progress=progress,
    )  # fmt: skip


def use_up(
    fusion: MultiLevelFusion,
    seen: Features,
    picture: Tensor,
    styles: Sequence[StyleFeatures],
    shares: Sequence[float],
    *,
    strength: float = 1.0,
    temperature: float = 1.0,
    mask: Tensor | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    positions: int = CHUNK_POSITIONS,
    reuse: bool = False,
    progress: ProgressCallback | None = None,
) -> StylizedFeatures:
    """`paint`, with arguments that are known to be right and are taken apart: each level's features and keys leave
    `seen` and `styles` when they have been used, so that their memory is free if nobody else holds them. `reuse` says
    that nobody does, and that the features may be painted over."""
    with torch.no_grad(), disable_tf32(seen[fusion.levels[0]].device):
        own = fusion.merge({level: seen[level] for level in fusion.levels}) if strength < 1 else None
        if own is not None and strength == 0:
            fused = own
        else:
            painted = apply_statistics_chunked(
                fusion, seen, styles, shares, strength=strength, temperature=temperature, chunk_bytes=chunk_bytes,
                positions=positions, reuse=reuse, progress=progress,
            )  # fmt: skip
            fused = fusion.merge(painted)
    level = torch.full((1, 1, 1, 1), strength, device=picture.device)
    return StylizedFeatures(fused, own, picture, level, mask)


def decode(
    decoder: Decoder,
    painting: StylizedFeatures,
    *,
    picture: Tensor | None = None,
    keep_color: bool = False,
    tile_bytes: int | None = None,
) -> Tensor:
    """Pixels of a painting.

    Below full strength the decoder's own error on the content (what it loses of an unchanged picture) is added back in
    proportion, so that strength 0 is the content itself.

    Args:
        decoder: of the model whose attention painted.
        painting: features on its device.
        tile_bytes: see `strips.tile_rows`.
        picture: (B or 1, 3, H, W) on the content's device: what shows where nothing is painted, and gives the
            colours; None is the content.
        keep_color: take only brightness from the result.

    Returns:
        (B, 3, H, W) float32 in [0, 1], on the content's device. Where the mask is 0 it is the picture, exactly.
    """
    content = painting.content
    plain = content if picture is None else expand_to_batch(picture, content)
    result = _decoded(decoder, painting, tile_bytes).clamp(0, 1)
    if keep_color:
        result = keep_content_color(result, plain)
    mask = painting.mask
    return result if mask is None else torch.where(mask > 0, torch.lerp(plain, result, mask), plain)


def _decoded(decoder: Decoder, painting: StylizedFeatures, tile_bytes: int | None) -> Tensor:
    """The whole picture painted, not clamped."""
    content, own, strength = painting.content, painting.own, painting.strength
    if own is not None and not bool(strength.any()):  # asked only below full strength: an accelerator has to answer
        return content
    size = (content.shape[-2], content.shape[-1])
    with torch.no_grad():
        result = decoder.in_tiles(painting.fused, size, tile_bytes).float().to(content.device)
        if own is not None:
            unchanged = decoder.in_tiles(own, size, tile_bytes).float().to(content.device)
            result = result + (1 - strength) * (content - unchanged)
    return result


def check_origin(features: ImageFeatures, wanted: ModelFingerprint, model: str, role: str) -> None:
    """ValueError unless the features are of the encoder that a model's attention was trained with."""
    if features.encoder.fingerprint != wanted.fingerprint:
        raise ValueError(
            f"the {role} features come from the encoder {features.encoder}, and the attention of {model} reads only "
            f"those of its own encoder, {wanted}. Extract them with the encoder that was loaded with the attention."
        )


def check_decoder(painting: StylizedFeatures, attention: ModelFingerprint) -> None:
    """ValueError unless a decoder's model has the attention that painted."""
    if painting.attention.fingerprint != attention.fingerprint:
        raise ValueError(
            f"this was painted by the attention {painting.attention}, and the decoder is that of {attention}. "
            "Use the decoder that was loaded with the attention."
        )
