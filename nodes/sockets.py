"""Socket types of the pack, and the inputs that several nodes share, so that they mean the same in all of them."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .compat import call_supported
from .core import stages

CATEGORY = "AdaAttN"
STYLE_SIZE = 512

EncoderType = io.Custom("ADAATTN_ENCODER")
AttentionType = io.Custom("ADAATTN_ATTENTION")
DecoderType = io.Custom("ADAATTN_DECODER")
FeaturesType = io.Custom("ADAATTN_FEATURES")
FusedType = io.Custom("ADAATTN_FUSED")
RegionsType = io.Custom("ADAATTN_REGIONS")


def schema(node_id: str, display_name: str, *, aliases: list[str], **options: Any) -> io.Schema:  # noqa: ANN401
    """A schema with the id prefix and category of this pack."""
    return call_supported(
        io.Schema, node_id=f"AdaAttN_{node_id}", display_name=display_name, category=CATEGORY,
        search_aliases=aliases, **options,
    )  # fmt: skip


def unit_slider(name: str, display_name: str, default: float, tooltip: str, **options: Any) -> io.Input:  # noqa: ANN401
    """A slider from 0 to 1."""
    return call_supported(
        io.Float.Input, name, display_name=display_name, default=default, min=0.0, max=1.0, step=0.01,
        display_mode=io.NumberDisplay.slider, tooltip=tooltip, **options,
    )  # fmt: skip


def weight(name: str, display_name: str, tooltip: str, **options: Any) -> io.Input:  # noqa: ANN401
    """The weight of a style in a mix."""
    return call_supported(
        io.Float.Input, name, display_name=display_name, default=1.0, min=0.0, max=10.0, step=0.05, optional=True,
        tooltip=tooltip, **options,
    )  # fmt: skip


def strength() -> io.Input:
    return unit_slider(
        "strength", "strength", 1.0, "Strength of the style: 0 gives the content unchanged, 1 gives the full style."
    )


def style_size() -> io.Input:
    return call_supported(
        io.Int.Input, "style_size", display_name="style size", default=STYLE_SIZE, min=0, max=4096, step=16,
        optional=True, advanced=True,
        tooltip="Reduces styles with a longer short side to this short side in pixels. Smaller values give finer "
        "strokes and are faster, larger values give bolder strokes. 0 keeps the size of the styles.",
    )  # fmt: skip


def temperature() -> io.Input:
    return call_supported(
        io.Float.Input, "temperature", display_name="temperature", default=1.0, min=0.05, max=20.0, step=0.05,
        optional=True, advanced=True,
        tooltip="Sets how many places of the style are blended into each place of the content. 1 is the value of the "
        "training. Higher values are softer and more even, lower values are sharper.",
    )  # fmt: skip


def attention_inputs() -> list[io.Input]:
    """Which style positions attention reads: all, or a random sample."""
    return [
        call_supported(
            io.Combo.Input, "attention_mode", display_name="look at", options=list(stages.ATTENTIONS),
            default=stages.ATTENTIONS[0], optional=True, advanced=True,
            tooltip="exact uses every place of the style. sampled uses 4096 random places, as the published code does: "
            "it is faster with a large style, but less faithful.",
        ),
        call_supported(
            io.Int.Input, "sample_seed", display_name="sample seed", default=0, min=0, max=2**31 - 1, step=1,
            advanced=True, optional=True,
            tooltip="Selects the random places of sampled. The same seed gives the same picture. exact does not use "
            "it.",
        ),
    ]  # fmt: skip


def every_style() -> io.Input:
    return call_supported(
        io.Boolean.Input, "every_style", display_name="every style", default=False, optional=True, advanced=True,
        tooltip="For a batch of contents and a batch of styles: paints each content in each style. When it is off, "
        "batches of equal size pair up. One content is always painted in each style.",
    )  # fmt: skip


def mask_inputs() -> list[io.Input]:
    """Where the content is stylized. The mask is shaped first: threshold, then invert, then feather."""
    return [
        io.Mask.Input(
            "content_mask", display_name="content mask", optional=True,
            tooltip="Where to paint: white areas get the style, black areas stay exactly the content. The mask can "
            "have any size; it is resized to the content. The empty mask that Load Image gives for a picture without "
            "transparency counts as no mask.",
        ),
        call_supported(
            io.Boolean.Input, "mask_invert", display_name="invert mask", default=False, optional=True, advanced=True,
            tooltip="Paints where the content mask is black instead. The mask of Load Image is white where the "
            "picture is transparent.",
        ),
        call_supported(
            io.Int.Input, "mask_feather", display_name="feather mask", default=0, min=0, max=512, step=1, optional=True,
            display_mode=io.NumberDisplay.slider, advanced=True,
            tooltip="Softens the edge of the content mask by this many pixels on either side. 0 keeps the edge.",
        ),
        unit_slider(
            "mask_threshold", "mask threshold", 0.0,
            "Turns a grey content mask into black and white: areas of at least this brightness become white. 0 keeps "
            "the grey values, which blend content and style.",
            optional=True, advanced=True,
        ),
    ]  # fmt: skip


def keep_color() -> io.Input:
    return io.Boolean.Input(
        "keep_color", display_name="keep colours", default=False, optional=True,
        tooltip="Takes only the brightness from the style and keeps the colours of the content.",
    )  # fmt: skip
