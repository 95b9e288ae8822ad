"""The node Decode AdaAttN: stylized features to an image."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from . import bridge
from .core import ProgressCallback, batching, memory_budget, stages, validation
from .outcome import told
from .pictures import to_image, to_pictures, with_alpha
from .sockets import DecoderType, FusedType, keep_color, schema


class Decode(io.ComfyNode):
    """Decodes stylized features into an image of the content's size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Decode",
            "Decode AdaAttN",
            aliases=["decode style", "features to image"],
            description="Turns repainted features into a picture of the same size as the content. Where nothing was "
            "painted, the picture is exactly the content.",
            inputs=[
                DecoderType.Input("decoder", display_name="decoder", tooltip="Connect Load AdaAttN Model."),
                FusedType.Input("fused", display_name="fused", tooltip="Connect Apply AdaAttN or Mix AdaAttN Styles."),
                keep_color(),
                io.Image.Input(
                    "content", display_name="content image", optional=True,
                    tooltip="This picture is shown where nothing is painted, and keep colours takes its colours. Leave "
                    "it unconnected to use the content. Another picture needs the same size.",
                ),
            ],
            outputs=[io.Image.Output("image", display_name="image", tooltip="The painted picture.")],
        )  # fmt: skip

    @classmethod
    @told
    def execute(
        cls,
        decoder: bridge.Part,
        fused: stages.StylizedFeatures,
        keep_color: bool = False,
        content: Tensor | None = None,
    ) -> io.NodeOutput:
        stages.check_decoder(fused, decoder.attention)
        picture = None
        if content is not None:
            picture = validation.expand_to_batch(to_pictures(content, "content"), fused.content).clamp(0, 1)
        image, progress = bridge.empty_image(fused.content), bridge.NodeProgress()
        with bridge.loaded([decoder], fused.content) as device:

            def run(items: slice, sizes: memory_budget.ChunkSizes, _progress: ProgressCallback | None) -> None:
                stylized, background = bridge.to_device(batching.slice_batch((fused, picture), items), device)
                result = stages.decode(
                    decoder.module, stylized, picture=background, keep_color=keep_color, tile_bytes=sizes.tile_bytes
                )
                image[items] = to_image(result)
                progress.show(result[:1])

            batching.run_batched(run, fused.content, progress=progress)
        return io.NodeOutput(with_alpha(image, fused.alpha))
