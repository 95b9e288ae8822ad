"""The node AdaAttN Style Region: a part of the content in a style of its own, and how AdaAttN Stylize places them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from comfy_api.latest import io
from torch import Tensor

from .core import masks, remarks
from .outcome import told
from .pairs import Pairs, repeat_masks
from .pictures import fit_drawn_mask, to_pictures
from .sockets import RegionsType, schema, weight


class Region(NamedTuple):
    """A region as it comes from the node, before the content is known.

    style: IMAGE. mask: MASK, shaped by invert and feather. style_mask: MASK of the style. weight: counts where regions
    overlap.
    """

    style: Tensor
    mask: Tensor
    invert: bool = False
    feather: int = 0
    style_mask: Tensor | None = None
    weight: float = 1.0


class StyleRegion(io.ComfyNode):
    """Pairs a region of the content with a style; several of these nodes in a row give several regions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "StyleRegion",
            "AdaAttN Style Region",
            aliases=["region style", "regional style", "style mask", "local style", "several styles"],
            description="A region of the content and the style in which AdaAttN Stylize paints it. For more regions, "
            "connect several of these nodes in a row. The styles of AdaAttN Stylize itself paint what the regions "
            "leave, or the content mask where one is connected.",
            inputs=[
                io.Image.Input("style", display_name="style", tooltip="The picture whose style the region gets."),
                io.Mask.Input(
                    "mask", display_name="mask",
                    tooltip="The region of the content: white. The mask of Load Image is white where you painted in "
                    "the mask editor. The mask can have any size; it is resized to the content.",
                ),
                io.Boolean.Input(
                    "mask_invert", display_name="invert mask", default=False, optional=True,
                    tooltip="Takes the black part of the mask as the region instead.",
                ),
                io.Int.Input(
                    "mask_feather", display_name="feather mask", default=0, min=0, max=512, step=1, optional=True,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="Softens the edge of the region by this many pixels on either side, so that its style "
                    "passes into the one beside it. 0 keeps the edge.",
                ),
                io.Mask.Input(
                    "style_mask", display_name="style mask", optional=True,
                    tooltip="The part of the style that is used: white. The mask can have any size; it is resized to "
                    "the style.",
                ),
                weight(
                    "weight", "weight",
                    "Weight of this style where regions overlap. Only the proportions count. 0 leaves the region out.",
                    advanced=True,
                ),
                RegionsType.Input(
                    "previous", display_name="previous regions", optional=True,
                    tooltip="Connect another AdaAttN Style Region to add its regions to this one.",
                ),
            ],
            outputs=[
                RegionsType.Output(
                    "regions", display_name="regions",
                    tooltip="Connect to AdaAttN Stylize, or to another AdaAttN Style Region.",
                )
            ],
        )  # fmt: skip

    @classmethod
    @told
    def execute(
        cls,
        style: Tensor,
        mask: Tensor,
        mask_invert: bool = False,
        mask_feather: int = 0,
        style_mask: Tensor | None = None,
        weight: float = 1.0,
        previous: tuple[Region, ...] | None = None,
    ) -> io.NodeOutput:
        to_pictures(style, "style")  # its error comes at this node, and not at the one that paints
        region = Region(style, mask, mask_invert, mask_feather, style_mask, weight)
        return io.NodeOutput((*(previous or ()), region))


class Placed(NamedTuple):
    """Which styles are painted, and where.

    used: numbers of the styles. masks: (B or 1, 1, H, W) of each; None for everywhere. covered: where any is painted;
    None for everywhere.
    """

    used: list[int]
    masks: list[Tensor] | None
    covered: Tensor | None


def place(
    regions: Sequence[Region], weights: Sequence[float], mask: Tensor | None, pairs: Pairs, picture: Tensor
) -> Placed:
    """The styles of AdaAttN Stylize, and after them those of the regions, on their places of the content.

    Styles of the node paint the content mask; without one, what the regions leave. A style that is painted nowhere is
    left out, and a remark says so. Where nothing is painted at all, every style stays, and `covered` is 0.

    Args:
        regions: from AdaAttN Style Region.
        weights: of all styles; those of the regions are the last ones.
        mask: the content mask, (B or 1, 1, H, W).
        pairs: which content each result paints.
        picture: (B, 3, H, W), the content of each result.
    """
    everything = list(range(len(weights)))
    if not regions:
        return Placed(everything, None, mask)
    drawn = [
        fit_drawn_mask(
            repeat_masks(one.mask, max(pairs.contents) + 1, pairs.contents), picture, f"mask of region {number}",
            invert=one.invert, feather=one.feather,
        )
        for number, one in enumerate(regions, 1)
    ]  # fmt: skip
    own = len(weights) - len(regions)
    nothing = torch.zeros_like(drawn[0])
    taken = masks.union([nothing, *(area for area, one in zip(drawn, regions, strict=True) if one.weight)])
    areas = [1 - taken if mask is None else mask] * own + drawn
    if mask is None and any(weights[:own]) and not bool(areas[0].any()):
        remarks.remark(
            "",
            "the regions cover the whole content, so that the style of AdaAttN Stylize is painted nowhere; set its "
            "weight to 0 if that is what you want",
        )
    used = [number for number in everything if weights[number] and bool(areas[number].any())]
    if not used:
        return Placed(everything, None, nothing)
    return Placed(used, [areas[number] for number in used], masks.union([areas[number] for number in used]))
