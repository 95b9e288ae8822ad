"""The node Extract AdaAttN Features: images to encoder features."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from . import bridge
from .core import ProgressCallback, batching, memory_budget, opacity, stages
from .outcome import told
from .pictures import to_alpha, to_pictures
from .sockets import EncoderType, FeaturesType, schema


class ExtractFeatures(io.ComfyNode):
    """Encodes images into the features that attention reads."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ExtractFeatures",
            "Extract AdaAttN Features",
            aliases=["encode image", "vgg features"],
            description="Computes the features of pictures with the encoder. Use one of these nodes for the content "
            "and one for the style. The style is encoded once and its features are reused while only the content "
            "changes.",
            inputs=[
                EncoderType.Input("encoder", display_name="encoder", tooltip="Connect Load AdaAttN Model."),
                io.Image.Input(
                    "image", display_name="image",
                    tooltip="A picture of any size from 16 x 16 pixels. A smaller style gives finer brush strokes. "
                    "For many frames use AdaAttN Stylize, which keeps no features in memory.",
                ),
            ],
            outputs=[
                FeaturesType.Output("features", display_name="features", tooltip="Connect to Apply AdaAttN.")
            ],
        )  # fmt: skip

    @classmethod
    @told
    def execute(cls, encoder: bridge.Part, image: Tensor) -> io.NodeOutput:
        color, alpha = to_pictures(image, "image"), to_alpha(image)
        pictures = opacity.visible_color(color, alpha)

        def run(
            items: slice, sizes: memory_budget.ChunkSizes, _progress: ProgressCallback | None
        ) -> stages.ImageFeatures:
            features = stages.extract_features(
                encoder.module, pictures[items], role="image", origin=encoder.encoder, tile_bytes=sizes.tile_bytes
            )
            return bridge.to_output_device(features)

        with bridge.loaded([encoder], pictures):
            parts = batching.run_batched(run, pictures, progress=bridge.NodeProgress())
        features = batching.concat_batches(parts)
        if alpha is not None:  # with the colours that are hidden: what is not painted shows them
            features = bridge.to_output_device(features._replace(picture=color.clamp(0, 1), alpha=alpha))
        return io.NodeOutput(features)
