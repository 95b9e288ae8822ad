"""The node Mix AdaAttN Styles: several styles on one content."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core import mixing
from .outcome import told
from .pairs import repeat
from .pictures import fit_content_mask
from .sockets import FusedType, schema, weight

SLOTS = (1, 2, 3, 4)


class MixStyles(io.ComfyNode):
    """Mixes stylized features of one content by weights and by masks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MixStyles",
            "Mix AdaAttN Styles",
            aliases=["blend styles", "combine styles", "interpolate styles", "region style"],
            description="Mixes up to four styles that were applied to the same content. For more styles, connect one "
            "of these nodes to another. Weights set the proportions. Masks set the regions: each style is painted "
            "where its mask is white, and the content stays where no mask is white.",
            inputs=[one for slot in SLOTS for one in _slot(slot)],
            outputs=[FusedType.Output("fused", display_name="fused", tooltip="Connect to Decode AdaAttN.")],
        )

    @classmethod
    @told
    def execute(cls, **slots: Any) -> io.NodeOutput:  # noqa: ANN401 (fused_1, weight_1, mask_1, fused_2, ...)
        used = [slot for slot in SLOTS if slots.get(f"fused_{slot}") is not None]
        paintings = [slots[f"fused_{slot}"] for slot in used]
        count = max(len(painting.content) for painting in paintings)
        paintings = [
            painting._replace(content=repeat(painting.content, range(count)))
            if len(painting.content) == 1
            else painting
            for painting in paintings
        ]
        masks = [
            fit_content_mask(slots.get(f"mask_{slot}"), paintings[0].content, name=f"mask {slot}") for slot in used
        ]
        return io.NodeOutput(
            mixing.mix_paintings(paintings, [slots.get(f"weight_{slot}", 1.0) for slot in used], masks)
        )


def _slot(slot: int) -> list[io.Input]:
    return [
        FusedType.Input(
            f"fused_{slot}", display_name=f"style {slot}", optional=slot > 1,
            tooltip="Connect Apply AdaAttN. All styles need the same content features and the same model.",
        ),
        weight(
            f"weight_{slot}", f"weight {slot}",
            "Weight of this style. Only the proportions count. 0 leaves the style out.",
        ),
        io.Mask.Input(
            f"mask_{slot}", display_name=f"mask {slot}", optional=True,
            tooltip="The region where this style is painted: white. The mask can have any size; it is resized to the "
            "content. It is combined with the mask given to Apply AdaAttN.",
        ),
    ]  # fmt: skip
