"""The node Apply AdaAttN: content features with the statistics of a style."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io
from torch import Tensor

from . import bridge
from .core import ProgressCallback, batching, chunked, cost, digest, fusion, memory_budget, stages
from .outcome import told
from .pairs import pair_up, repeat, repeat_masks, take
from .pictures import both, fit_content_mask, fit_style_mask, painted_strength, to_mask
from .sockets import (
    AttentionType,
    FeaturesType,
    FusedType,
    attention_inputs,
    every_style,
    mask_inputs,
    schema,
    strength,
    temperature,
)


class Apply(io.ComfyNode):
    """Attention between content and style features, for one style."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Apply",
            "Apply AdaAttN",
            aliases=["apply style", "attention style", "region style"],
            description="Repaints content features with a style: each place of the content gets the look of the most "
            "similar places of the style. With both masks, a region of the content is painted like a region of the "
            "style. Mix several of these results with Mix AdaAttN Styles.",
            inputs=[
                AttentionType.Input("attention", display_name="attention", tooltip="Connect Load AdaAttN Model."),
                FeaturesType.Input("content", display_name="content", tooltip="Features of the picture to repaint."),
                FeaturesType.Input(
                    "style", display_name="style",
                    tooltip="Features of the style: one style for all contents, or one style for each content.",
                ),
                strength(),
                *mask_inputs(),
                io.Mask.Input(
                    "style_mask", display_name="style mask", optional=True,
                    tooltip="The part of the style that is used: white. The mask can have any size; it is resized to "
                    "the style.",
                ),
                temperature(),
                *attention_inputs(),
                every_style(),
            ],
            outputs=[
                FusedType.Output(
                    "fused", display_name="fused", tooltip="Connect to Decode AdaAttN or Mix AdaAttN Styles."
                ),
                io.Mask.Output(
                    "mask", display_name="mask",
                    tooltip="The content mask as it was applied: white areas were repainted.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    @told
    def execute(
        cls,
        attention: bridge.Part,
        content: stages.ImageFeatures,
        style: stages.ImageFeatures,
        strength: float,
        content_mask: Tensor | None = None,
        mask_invert: bool = False,
        mask_feather: int = 0,
        mask_threshold: float = 0.0,
        style_mask: Tensor | None = None,
        temperature: float = 1.0,
        attention_mode: stages.Attention = "exact",
        sample_seed: int = 0,
        every_style: bool = False,
    ) -> io.NodeOutput:
        for features, role in ((content, "content"), (style, "style")):
            stages.check_origin(features, attention.encoder, attention.attention.name, role)
        pairs = pair_up(len(content.picture), [len(style.picture)], every_style)
        picture = repeat(content.picture, pairs.contents)
        mask = fit_content_mask(
            repeat_masks(content_mask, len(content.picture), pairs.contents),
            picture,
            threshold=mask_threshold,
            invert=mask_invert,
            feather=mask_feather,
        )
        strength = painted_strength(strength, mask)
        options = chunked.TransferOptions(strength=strength, temperature=temperature)
        part_of_style = both(fit_style_mask(style_mask, style.picture), style.alpha)
        look = attention_mode, sample_seed if attention_mode == "sampled" else 0
        with bridge.loaded([attention], content.picture, style.picture) as device:

            def encode() -> fusion.StyleFeatures:
                features = bridge.to_device(style, device).as_dict()
                return stages.encode_style_features(
                    attention.module, features, mask=part_of_style, attention=look[0], seed=look[1]
                )

            style_shelf = bridge.shelf(attention, device, style, part_of_style, look)
            shelf = style_shelf.under(digest(content), temperature)
            encoded = style_shelf.fetched("style", encode)

            def run(
                items: slice, sizes: memory_budget.ChunkSizes, progress: ProgressCallback | None
            ) -> stages.StylizedFeatures:
                places = pairs.contents[items], pairs.styles[items]
                batch = bridge.to_device(repeat(content, places[0]), device)

                def paint(options: chunked.TransferOptions) -> stages.StylizedFeatures:
                    return stages.transfer(
                        attention.module, batch.as_dict(), batch.picture, [take(encoded, places[1])], options,
                        sizes=sizes, progress=progress,
                    )  # fmt: skip

                def features() -> tuple[fusion.FusedFeatures, fusion.FusedFeatures]:
                    fused = paint(replace(options, strength=1.0)).fused
                    return fused, stages.own_features(attention.module, batch.as_dict())

                if not shelf.fits(2 * cost.fused_bytes(attention.config, batch.picture)):
                    return bridge.to_output_device(paint(options))
                fused, own = shelf.under(*map(tuple, places)).fetched("features", features)
                return bridge.to_output_device(stages.at_strength(fused, own, batch.picture, strength))

            parts = batching.run_batched(
                run, picture, sizes=memory_budget.fastest_sizes(device), progress=bridge.NodeProgress()
            )
        stylized = batching.concat_batches(parts)._replace(
            content=picture,
            strength=parts[0].strength,
            mask=mask,
            attention=attention.attention,
            alpha=repeat(content.alpha, pairs.contents),
        )  # fmt: skip
        return io.NodeOutput(stylized, to_mask(mask, picture))
