"""Several styles on one content."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core import mixing
from .pictures import content_area
from .sockets import FusedType, schema, weight

SLOTS = (1, 2, 3, 4)


class MixStyles(io.ComfyNode):
    """Paintings of one content, mixed by weight and by mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "MixStyles",
            "Mix AdaAttN Styles",
            aliases=["blend styles", "combine styles", "interpolate styles", "region style"],
            description="Mixes up to four styles applied to the same content; for more, connect one of these to "
            "another. Weights say how much of each. Masks say where: each style is painted where its mask is white, "
            "and where no mask is white the content stays.",
            inputs=[one for slot in SLOTS for one in _slot(slot)],
            outputs=[FusedType.Output("fused", display_name="fused", tooltip="For Decode AdaAttN.")],
        )

    @classmethod
    def execute(cls, **slots: Any) -> io.NodeOutput:  # noqa: ANN401 (fused_1, weight_1, mask_1, fused_2, ...)
        taken = [slot for slot in SLOTS if slots.get(f"fused_{slot}") is not None]
        paintings = [slots[f"fused_{slot}"] for slot in taken]
        masks = [content_area(slots.get(f"mask_{slot}"), paintings[0].content, name=f"mask {slot}") for slot in taken]
        return io.NodeOutput(
            mixing.mix_paintings(paintings, [slots.get(f"weight_{slot}", 1.0) for slot in taken], masks)
        )


def _slot(slot: int) -> list[io.Input]:
    return [
        FusedType.Input(
            f"fused_{slot}", display_name=f"style {slot}", optional=slot > 1,
            tooltip="From Apply AdaAttN; all of the same content features and the same model.",
        ),
        weight(f"weight_{slot}", f"weight {slot}", "Share of this style; only the proportions count. 0 leaves it out."),
        io.Mask.Input(
            f"mask_{slot}", display_name=f"mask {slot}", optional=True,
            tooltip="Where this style is painted. Any size; it is stretched to the content. Works together with the "
            "mask given to Apply AdaAttN.",
        ),
    ]  # fmt: skip
