"""The node AdaAttN Stylize: the whole style transfer in one node."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from comfy_api.latest import io
from torch import Tensor

from . import bridge, files
from .compat import call_supported
from .core import (
    KeptStyles,
    StyleFeatures,
    StyleTransferModel,
    batching,
    coarse_to_fine,
    digest,
    encode_reduced,
    opacity,
    remarks,
    resize,
    stages,
    stylize,
    sub_progress,
)
from .loaders import model_input
from .outcome import told
from .pairs import Pairs, pair_up, repeat, repeat_masks, take
from .pictures import fit_content_mask, painted_strength, to_alpha, to_image, to_pictures, to_style, with_hidden
from .refine import MAX_STEPS, refined
from .regions import Region, place
from .sockets import (
    STYLE_SIZE,
    RegionsType,
    attention_inputs,
    every_style,
    keep_color,
    mask_inputs,
    schema,
    strength,
    style_size,
    temperature,
    weight,
)

SLOTS = (2, 3, 4)
PREVIEW_ABOVE = 1536 * 1024
"""Contents with more pixels are first stylized at a small size for a preview, which takes a few percent of the time."""
PREVIEW_SIZE = 256
TRANSFER_SHARE = 0.05
"""Share of the progress bar for style transfer if refinement follows."""


class Stylize(io.ComfyNode):
    """Stylizes images with one style or a mix of up to four."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Stylize",
            "AdaAttN Stylize",
            aliases=[  # the first three are of no other node, so that a search for the method lists this one first
                "style transfer", "neural style", "AdaAttN", "paint like", "artistic style", "image style",
                "video style", "paint", "art",
            ],
            description="Repaints a picture in the style of another picture, or in a mix of up to four styles. The "
            "pictures of a batch and the frames of a clip are repainted one after another in the same style.",
            inputs=[
                model_input(),
                io.Image.Input("content", display_name="content", tooltip="The picture to repaint. It keeps its size."),
                io.Image.Input(
                    "style", display_name="style",
                    tooltip="The picture whose style is used: one for the whole content batch, or one for each "
                    "content.",
                ),
                strength(),
                style_size(),
                keep_color(),
                *mask_inputs(),
                io.Mask.Input(
                    "style_mask", display_name="style mask", optional=True,
                    tooltip="The part of the first style that is used: white. The mask can have any size; it is "
                    "resized to the style.",
                ),
                weight(
                    "style_weight", "weight", "Weight of the first style in a mix of several styles.", advanced=True
                ),
                *(one for slot in SLOTS for one in style_slot(slot)),
                temperature(),
                *attention_inputs(),
                call_supported(
                    io.Int.Input, "refine_steps", display_name="refine steps", default=0, min=0, max=MAX_STEPS, step=1,
                    optional=True, advanced=True,
                    tooltip="Steps in which the pixels of the result are optimised until the strokes of the style "
                    "show, as AdaAttN Refine does it. 60 to 100 are usual and take about a minute for 512 x 512 pixels "
                    "on two CPU cores. 0 is none and is fastest.",
                ),
                every_style(),
                io.Float.Input(
                    "stroke_size", display_name="stroke size", default=0.0, min=0.0,
                    max=coarse_to_fine.MAX_STROKE_SIZE, step=0.25, optional=True,
                    tooltip="Size of the strokes relative to the picture: 1 is that of a picture with a short side of "
                    "512 pixels, 2 twice that. Larger pictures are painted in several passes, coarse to fine, which "
                    "take about half as much time again, and style size is not used. 0 is one pass, in which strokes "
                    "have the same size in pixels in every picture.",
                ),
                RegionsType.Input(
                    "regions", display_name="regions", optional=True,
                    tooltip="Connect AdaAttN Style Region: parts of the content in styles of their own. The styles of "
                    "this node then paint the content mask, or without one what the regions leave. The content stays "
                    "outside all masks.",
                ),
            ],
            outputs=[io.Image.Output("image", display_name="image", tooltip="The repainted picture.")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None = None, **_inputs: object) -> str:
        return files.stamp(model_name, bridge.find_file)

    @classmethod
    @told
    def execute(
        cls,
        model_name: str,
        content: Tensor,
        style: Tensor,
        strength: float,
        style_size: int = STYLE_SIZE,
        keep_color: bool = False,
        content_mask: Tensor | None = None,
        mask_invert: bool = False,
        mask_feather: int = 0,
        mask_threshold: float = 0.0,
        style_mask: Tensor | None = None,
        style_weight: float = 1.0,
        temperature: float = 1.0,
        attention_mode: stages.Attention = "exact",
        sample_seed: int = 0,
        refine_steps: int = 0,
        every_style: bool = False,
        stroke_size: float = 0.0,
        regions: tuple[Region, ...] | None = None,
        **more_styles: Any,  # noqa: ANN401 (style_2, style_2_weight, ...)
    ) -> io.NodeOutput:
        to_pictures(content, "content")  # its error comes before those of the styles
        regions = checked_regions(regions, refine_steps)
        more = [slot for slot in SLOTS if more_styles.get(f"style_{slot}") is not None]
        weights = [style_weight, *(more_styles.get(f"style_{slot}_weight", 1.0) for slot in more)]
        weights += [region.weight for region in regions]
        images = [style, *(more_styles[f"style_{slot}"] for slot in more), *(region.style for region in regions)]
        pairs = pair_up(len(content), [len(one) for one in images], every_style)
        content_mask = repeat_masks(content_mask, len(content), pairs.contents)
        content = repeat(content, pairs.contents)
        pictures = opacity.visible_color(to_pictures(content, "content"), to_alpha(content))
        mask = fit_content_mask(
            content_mask, pictures, threshold=mask_threshold, invert=mask_invert, feather=mask_feather
        )
        used, areas, mask = place(regions, weights, mask, pairs, pictures)
        strength = painted_strength(strength, mask)
        shrink = partial(reduced, short_side=checked_size(style_size, stroke_size))
        parts = [style_mask, *[None] * len(more), *(region.style_mask for region in regions)]
        styles, style_masks = zip(*(to_style(images[number], parts[number], shrink) for number in used), strict=True)
        batch, progress = Batch(pairs, pictures, mask, areas, styles, style_masks), bridge.NodeProgress()
        options: dict[str, Any] = {
            "style_weights": [weights[number] for number in used], "strength": strength, "temperature": temperature,
            "keep_color": keep_color,
        }  # fmt: skip
        image = painted(
            batch, bridge.model_part(model_name), progress, TRANSFER_SHARE if refine_steps else 1.0,
            attention=attention_mode, seed=sample_seed if attention_mode == "sampled" else 0, stroke_size=stroke_size,
            **options,
        )  # fmt: skip
        if refine_steps:
            share = sub_progress(progress, TRANSFER_SHARE, 1)
            image = refined(
                to_pictures(image, "image"), pictures, take(styles, pairs.styles), share, progress,
                steps=refine_steps, style_masks=take(style_masks, pairs.styles), content_mask=mask, **options,
            )  # fmt: skip
        return io.NodeOutput(with_hidden(image, content, mask, strength))


class Batch(NamedTuple):
    """What is painted, and in what.

    pairs: content and style of each result. pictures: (B, 3, H, W), the content of each result. mask: where it is
    painted, (B or 1, 1, H, W); None for everywhere. areas: the same for each style; None where `mask` is that of all.
    styles: (S or 1, 3, H, W) each. style_masks: the part of each that is used; None for all of it.
    """

    pairs: Pairs
    pictures: Tensor
    mask: Tensor | None
    areas: list[Tensor] | None
    styles: tuple[Tensor, ...]
    style_masks: tuple[Tensor | None, ...]


def painted(
    batch: Batch,
    part: bridge.Part,
    progress: bridge.NodeProgress,
    share: float,
    **options: Any,  # noqa: ANN401 (options of `stylize`)
) -> Tensor:
    """IMAGE with the results of a batch; a large content is shown small first. share: of the progress bar."""
    pairs, pictures, mask, areas, styles, style_masks = batch
    image, bar = bridge.empty_image(pictures), sub_progress(progress, 0, share)
    paint: Callable[..., Tensor] = partial(stylize, part.module, **options)
    where: dict[str, Any] = {"content_mask": mask} if areas is None else {"region_masks": areas}
    kept = [options[name] for name in ("attention", "seed", "style_weights", "temperature", "stroke_size")]

    def show(start: int, items: slice, result: Tensor) -> None:
        image[start + items.start : start + items.stop] = to_image(result)
        progress.show(result[:1])

    with bridge.loaded([part], pictures, *styles) as device:
        shelf = bridge.shelf(part, device, styles, style_masks, areas, *kept)
        encode = partial(kept_style, part, device)
        if is_large(pictures):
            small, first = reduced(pictures[:1], PREVIEW_SIZE), slice(0, 1)
            of_style, of_part, here = batching.slice_batch((styles, style_masks, where), first)
            progress.show(paint(small, KeptStyles(of_style, encode), style_masks=of_part, **here))
        for items in pairs.groups():
            paint(
                pictures[items], KeptStyles(styles, encode), style_masks=style_masks,
                progress=sub_progress(bar, items.start / len(pictures), items.stop / len(pictures)),
                on_result=partial(show, items.start), shelf=shelf.under(digest(pictures[items])),
                **batching.slice_batch(where, items),
            )  # fmt: skip
    return image


def checked_regions(regions: tuple[Region, ...] | None, refine_steps: int) -> tuple[Region, ...]:
    """The regions that are connected.

    Raises:
        ValueError: there are some, and refinement, which knows no regions.
    """
    if regions and refine_steps:
        raise ValueError(
            f"refine steps is {refine_steps} and regions are connected, which refinement does not know. Set refine "
            "steps to 0, or disconnect regions."
        )
    return regions or ()


def is_large(pictures: Tensor) -> bool:
    """Whether a small preview is worth its time."""
    height, width = pictures.shape[-2:]
    return height * width > PREVIEW_ABOVE and min(height, width) > 2 * PREVIEW_SIZE


def kept_style(
    part: bridge.Part,
    device: torch.device,
    model: StyleTransferModel,
    style: Tensor,
    mask: Tensor | None,
    short_side: int | None,
    *options: Any,  # noqa: ANN401 (the other arguments of `encode_reduced`)
) -> StyleFeatures:
    """`encode_reduced`, whose results are kept beside the model."""
    shelf = bridge.shelf(part, device, style, mask, short_side, options)
    return shelf.fetched("style", partial(encode_reduced, model, style, mask, short_side, *options))


def checked_size(style_size: int, stroke_size: float = 0.0) -> int:
    """The short side that styles are reduced to; a remark says where it is not the one that was asked for."""
    if stroke_size:
        if style_size != STYLE_SIZE:
            remarks.remark("", f"style size {style_size} is not used: with a stroke size, each pass has its own")
        return coarse_to_fine.MAX_STYLE_SIDE
    if 0 < style_size < resize.MIN_SIDE:
        remarks.remark(
            "", f"style size {style_size} is too small and counts as {resize.MIN_SIDE}; 0 keeps the size of the styles"
        )
        return resize.MIN_SIDE
    return style_size


def reduced(pictures: Tensor, short_side: int) -> Tensor:
    """Pictures reduced to this short side where theirs is longer; 0 leaves them as they are."""
    if not short_side or min(pictures.shape[-2:]) <= short_side:
        return pictures
    return resize.resize_image(pictures, short_side=short_side)


def style_slot(slot: int) -> list[io.Input]:
    return [
        io.Image.Input(
            f"style_{slot}", display_name=f"style {slot}", optional=True, tooltip="Another style for the mix."
        ),
        weight(
            f"style_{slot}_weight", f"weight {slot}", "Weight of this style. Only the proportions count.", advanced=True
        ),
    ]
