"""The node AdaAttN Attention Map: which parts of the style one point of the content attends to."""

from __future__ import annotations

from comfy_api.latest import io

from . import bridge
from .attention_view import losses, view_file
from .core import attention_map, config, stages
from .outcome import told
from .pictures import to_image
from .sockets import AttentionType, FeaturesType, schema, temperature, unit_slider


class AttentionMap(io.ComfyNode):
    """Attention weights of one content point, as a heat map over the style."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "AttentionMap",
            "AdaAttN Attention Map",
            aliases=["attention heat map", "explain style", "visualize attention"],
            description="Shows the places of the style from which one point of the content is painted. Brighter "
            "places have a larger attention weight. The viewer in the node shows this for every point.",
            is_output_node=True,  # the viewer is a result, with or without a node for the heat map
            inputs=[
                AttentionType.Input("attention", display_name="attention", tooltip="Connect Load AdaAttN Model."),
                FeaturesType.Input("content", display_name="content", tooltip="Features of the picture to repaint."),
                FeaturesType.Input("style", display_name="style", tooltip="Features of the style."),
                unit_slider(
                    "x", "x", 0.5,
                    "Horizontal position of the point in the content: 0 is the left edge, 1 the right edge.",
                ),
                unit_slider(
                    "y", "y", 0.5,
                    "Vertical position of the point in the content: 0 is the top edge, 1 the bottom edge.",
                ),
                io.Combo.Input(
                    "level", display_name="level", options=list(config.IMAGE_LEVELS), default=config.IMAGE_LEVELS[0],
                    tooltip="relu3_1 compares small textures, relu4_1 larger shapes, and relu5_1 the largest shapes.",
                ),
                unit_slider(
                    "opacity", "opacity", 0.7, "0 shows only the style in grey, 1 shows only the heat map.",
                    advanced=True,
                ),
                temperature(),
            ],
            outputs=[
                io.Image.Output(
                    "image", display_name="heat map",
                    tooltip="The style in grey, with the attention of the point as a heat map.",
                )
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **_inputs: object) -> int:
        """The node runs again when its viewer's file was deleted, although the host still has its heat map."""
        return losses()

    @classmethod
    @told
    def execute(
        cls,
        attention: bridge.Part,
        content: stages.ImageFeatures,
        style: stages.ImageFeatures,
        x: float,
        y: float,
        level: str,
        opacity: float,
        temperature: float = 1.0,
    ) -> io.NodeOutput:
        for features, role in ((content, "content"), (style, "style")):
            stages.check_origin(features, attention.encoder, attention.attention.name, role)
        with bridge.loaded([attention], content.picture, style.picture) as device:
            on_device = bridge.to_device((content, style), device)
            weights = attention_map.attention_map(attention.module, *on_device, (x, y), level, temperature)
            heat = attention_map.overlay_heatmap(weights, on_device[1].picture, opacity)
            file = view_file(attention, (content, style), on_device, temperature)
            return io.NodeOutput(bridge.to_output_device(to_image(heat)), ui={"adaattn_attention": [file.as_output()]})
