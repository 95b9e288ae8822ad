"""The stages of a style transfer, one by one: images to features, features to stylized features, stylized
features to images.

`stylize` runs them one after the other; the ComfyUI nodes are these stages, with their results on the wires between.
Results hold their tensors in tuples, so that they can be moved, sliced and measured as a whole (ComfyUI's cache looks
into tuples, not into dicts).

Letters: B batch, H W pixels. Pictures are RGB float32 in [0, 1]; masks are (B or 1, 1, H, W) float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..models.decoder import Decoder
from ..models.encoder import ATTENTION_LEVELS, Features, VGGEncoder
from ..models.finite import is_finite, not_finite
from ..models.fusion import FusedFeatures, MultiLevelFusion, StyleFeatures
from ..ops.color import keep_color as keep_content_color
from ..runtime.device import disable_tf32
from ..runtime.progress import ProgressCallback
from .chunked import TransferOptions, apply_statistics_chunked
from .memory_budget import DEFAULT_SIZES, ChunkSizes
from .validation import check_picture, check_style_batches, expand_to_batch

Attention = Literal["exact", "sampled"]
ATTENTIONS: tuple[str, ...] = get_args(Attention)

SAMPLED_POSITIONS = 4096
"""Style positions that sampled attention keeps on relu3_1: 64 x 64, as in the published code."""

ONE_STYLE = TransferOptions()


class ModelFingerprint(NamedTuple):
    """Which weights made a result: the fingerprint tells them apart, the name is for messages."""

    fingerprint: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})"


UNKNOWN = ModelFingerprint()


class ImageFeatures(NamedTuple):
    """Pictures and their features.

    picture: (B, 3, H, W). names, levels: what attention reads of each level, see `VGGEncoder.encode`. encoder: which
    encoder computed them. alpha: opacity of the pictures, (B, 1, H, W), or None; for the caller, not read here.
    """

    picture: Tensor
    names: tuple[str, ...]
    levels: tuple[Tensor, ...]
    encoder: ModelFingerprint = UNKNOWN
    alpha: Tensor | None = None

    def as_dict(self) -> Features:
        """Level name -> features, as the parts of the model take them."""
        return dict(zip(self.names, self.levels, strict=True))


class StylizedFeatures(NamedTuple):
    """Contents with the statistics of their styles: everything that `decode` needs.

    fused: the decoder's input. own: the content's own features, fused the same way; None where the strength is 1.
    content: (B, 3, H, W). strength: (1 or B, 1, 1 or H, 1 or W). mask: where the result shows, None for everywhere.
    attention: which attention computed them. alpha: opacity of the contents, (B, 1, H, W), or None; for the caller.
    """

    fused: FusedFeatures
    own: FusedFeatures | None
    content: Tensor
    strength: Tensor
    mask: Tensor | None = None
    attention: ModelFingerprint = UNKNOWN
    alpha: Tensor | None = None


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
        origin: fingerprint of the encoder, kept with the features.
        tile_bytes: see `tiling.tile_rows`.

    Raises:
        ValueError: a wrong shape or type, a side under 16 pixels, NaN.
    """
    check_picture(pictures, role)
    pictures = clamp_pictures(pictures)
    features = encode(encoder, pictures, levels, tile_bytes)
    return ImageFeatures(pictures, tuple(features), tuple(features.values()), origin)


def encode(
    encoder: VGGEncoder, pictures: Tensor, levels: Sequence[str] = ATTENTION_LEVELS, tile_bytes: int | None = None
) -> Features:
    """Features of pictures in [0, 1] as a dict, which `transfer` can use up; arguments as in `extract_features`.

    Raises:
        NotFiniteError: a layer gives NaN or infinity.
    """
    weight = encoder.conv0.weight

    def run() -> Features:
        return encoder.encode(pictures.to(weight.device, weight.dtype), levels, tile_bytes)

    with torch.no_grad(), disable_tf32(weight.device):
        features = run()
        if weight.device.type == "cpu" and not all(map(is_finite, features.values())):
            raise not_finite("encoder", encoder, run)
    return features


@torch.no_grad()
def clamp_pictures(pictures: Tensor) -> Tensor:
    """Float32 in [0, 1]; on a CPU the same tensor where that is so already, since a copy of 8K takes 400 MB.

    The values on an accelerator are not inspected: the CPU would have to wait for all work queued there.
    """
    pictures = pictures.float()
    if pictures.device.type != "cpu":
        return pictures.clamp(0, 1)
    low, high = pictures.aminmax()
    return pictures if bool((low >= 0) & (high <= 1)) else pictures.clamp(0, 1)


def encode_style_features(
    fusion: MultiLevelFusion,
    features: Features,
    *,
    mask: Tensor | None = None,
    attention: Attention = "exact",
    seed: int = 0,
) -> StyleFeatures:
    """Keys and values of a style: all that attention needs of it, computed once for many contents.

    Args:
        fusion: a model's attention.
        features: of the style, on the attention's device.
        mask: at the style's size: the part to attend to; at least one pixel above 0.5.
        attention: "exact" attends to every style position, "sampled" to 4096 random ones, as the published code does.
        seed: of that choice; the same seed gives the same picture. The global generator is not touched.

    Raises:
        ValueError: an unknown attention, an empty mask.
    """
    if attention not in ATTENTIONS:
        raise ValueError(f"attention is {attention!r}; known are {', '.join(ATTENTIONS)}")
    if mask is not None and not bool((mask > 0.5).flatten(1).any(dim=1).all()):
        raise ValueError("the style mask is empty: no part of the style is left to look at. Paint some of it white.")
    samples = SAMPLED_POSITIONS if attention == "sampled" else None
    device = features[fusion.levels[0]].device
    with torch.no_grad(), disable_tf32(device):
        mask = None if mask is None else mask.to(device)
        return fusion.encode_style(features, mask, samples, torch.Generator().manual_seed(seed))


def transfer(
    fusion: MultiLevelFusion,
    features: Features,
    content: Tensor,
    styles: Sequence[StyleFeatures],
    options: TransferOptions = ONE_STYLE,
    *,
    sizes: ChunkSizes = DEFAULT_SIZES,
    in_place: bool = False,
    progress: ProgressCallback | None = None,
) -> StylizedFeatures:
    """Content features with the statistics of one style or of a mix.

    Masks of the content are no argument: the attention does not see them, so that a border takes its surroundings from
    the stylized picture and shows no halo. Set `mask` of the result for `decode`.

    Args:
        fusion: a model's attention.
        features: of the content, on the attention's device.
        content: (B, 3, H, W) the content itself, kept for `decode`.
        styles: one or more; each of batch 1, for all contents, or B.
        options: weights of the styles, strength, temperature.
        sizes: `chunk_bytes` and `positions` count.
        in_place: use `features` and `styles` up: levels are removed from the dicts when they have been read, so that
            their memory is free if nobody else holds them, and the features are overwritten.
        progress: called with the share that is done; stops the work by raising.

    Raises:
        ValueError: batches that do not pair up, a temperature that is not above 0.
    """
    check_style_batches(styles, len(content))
    if not in_place:
        features, styles = dict(features), [dict(style) for style in styles]
    with torch.no_grad(), disable_tf32(features[fusion.levels[0]].device):
        own = own_features(fusion, features) if options.strength < 1 else None
        if own is not None and options.strength == 0:
            fused = own
        else:
            fused = fusion.merge(
                apply_statistics_chunked(
                    fusion, features, styles, options, sizes=sizes, in_place=in_place, progress=progress
                )
            )
    return StylizedFeatures(
        fused, own, content, torch.full((1, 1, 1, 1), options.strength, device=content.device, dtype=torch.float32)
    )


def own_features(fusion: MultiLevelFusion, features: Features) -> FusedFeatures:
    """The content's features as the decoder takes them, unpainted. They may share memory with `features`."""
    with torch.no_grad(), disable_tf32(features[fusion.levels[0]].device):
        return fusion.merge({level: features[level] for level in fusion.levels})


@torch.no_grad()
def at_strength(fused: FusedFeatures, own: FusedFeatures, content: Tensor, strength: float) -> StylizedFeatures:
    """What `transfer` gives at a strength, from its result at strength 1: the same but for rounding.

    Args:
        fused: the result at strength 1.
        own: of `own_features`.
        content: (B, 3, H, W).
        strength: from 0 to 1.
    """
    strengths = torch.full((1, 1, 1, 1), strength, device=content.device, dtype=torch.float32)
    if strength == 1:
        return StylizedFeatures(fused, None, content, strengths)
    skip = None if own.skip is None or fused.skip is None else torch.lerp(own.skip, fused.skip, strength)
    return StylizedFeatures(FusedFeatures(torch.lerp(own.deep, fused.deep, strength), skip), own, content, strengths)


def decode(
    decoder: Decoder,
    stylized: StylizedFeatures,
    *,
    picture: Tensor | None = None,
    keep_color: bool = False,
    tile_bytes: int | None = None,
) -> Tensor:
    """Pixels of stylized features.

    Below full strength the decoder's own error on the content (what it loses of an unchanged picture) is added back in
    proportion, so that strength 0 is the content itself.

    Args:
        decoder: of the model whose attention made the features.
        stylized: features on its device.
        picture: (B or 1, 3, H, W) on the content's device: what shows where the mask is 0, and gives the colours;
            None is the content.
        keep_color: take only brightness from the result.
        tile_bytes: see `tiling.tile_rows`.

    Returns:
        (B, 3, H, W) float32 in [0, 1], on the content's device. Where the mask is 0 it is the picture, exactly.
    """
    background = stylized.content if picture is None else expand_to_batch(picture, stylized.content)
    result = decode_everywhere(decoder, stylized, tile_bytes)
    return show_painted(result, background, stylized.mask, keep_color)


def show_painted(painted: Tensor, background: Tensor, mask: Tensor | None, keep_color: bool) -> Tensor:
    """A painted picture where the mask is above 0, in its own colours or in those of the background.

    Args:
        painted, background: (B, 3, H, W) in [0, 1].
        mask: (B or 1, 1, H, W), None for everywhere.
        keep_color: take only brightness from `painted`.
    """
    if keep_color:
        painted = keep_content_color(painted, background)
    return painted if mask is None else torch.where(mask > 0, torch.lerp(background, painted, mask), background)


def decode_everywhere(
    decoder: Decoder, stylized: StylizedFeatures, tile_bytes: int | None = None, unchanged: Tensor | None = None
) -> Tensor:
    """(B, 3, H, W) in [0, 1], without regard to the mask.

    Args:
        decoder, stylized, tile_bytes: as in `decode`.
        unchanged: what `decode_features` makes of the content's own features, where that is known.
    """
    return _with_content(decoder, stylized, tile_bytes, unchanged).clamp(0, 1)


def decode_features(decoder: Decoder, fused: FusedFeatures, content: Tensor, tile_bytes: int | None = None) -> Tensor:
    """(B, 3, H, W) pixels of fused features, not clamped, at the size and on the device of the content.

    Raises:
        NotFiniteError: a layer gives NaN or infinity.
    """
    size = (content.shape[-2], content.shape[-1])

    def run() -> Tensor:
        return decoder.in_tiles(fused, size, tile_bytes)

    with torch.no_grad():
        pictures = run().float().to(content.device)
        if content.device.type == "cpu" and not is_finite(pictures):
            is_from_before = not all(is_finite(level) for level in fused if level is not None)
            raise not_finite("the attention", decoder) if is_from_before else not_finite("decoder", decoder, run)
    return pictures


def _with_content(
    decoder: Decoder, stylized: StylizedFeatures, tile_bytes: int | None, unchanged: Tensor | None
) -> Tensor:
    """(B, 3, H, W), not clamped."""
    content, own, strength = stylized.content, stylized.own, stylized.strength
    # `own` first: below full strength alone is the accelerator asked, and waited for
    if own is not None and not bool(strength.any()):
        return content
    result = decode_features(decoder, stylized.fused, content, tile_bytes)
    if own is not None:
        if unchanged is None:
            unchanged = decode_features(decoder, own, content, tile_bytes)
        result = result + (1 - strength) * (content - unchanged)
    return result


def check_origin(features: ImageFeatures, encoder: ModelFingerprint, model: str, role: str) -> None:
    """ValueError unless the features are of the encoder that a model's attention was trained with."""
    if features.encoder.fingerprint != encoder.fingerprint:
        raise ValueError(
            f"the {role} features come from the encoder {features.encoder}, and the attention of {model} reads only "
            f"those of its own encoder, {encoder}. Extract them with the encoder that was loaded with the attention."
        )


def check_decoder(stylized: StylizedFeatures, attention: ModelFingerprint) -> None:
    """ValueError unless a decoder's model has the attention that computed the features."""
    if stylized.attention.fingerprint != attention.fingerprint:
        raise ValueError(
            f"this was painted by the attention {stylized.attention}, and the decoder is that of {attention}. "
            "Use the decoder that was loaded with the attention."
        )
