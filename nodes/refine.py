"""The node AdaAttN Refine: the pixels of a stylized image optimised until the strokes of the style show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from . import bridge, files
from .compat import call_supported
from .core import ProgressCallback, opacity, refine
from .outcome import told
from .pairs import repeat
from .pictures import (
    fit_content_mask,
    painted_strength,
    to_alpha,
    to_image,
    to_pictures,
    to_style,
    with_alpha,
    with_hidden,
)
from .sockets import keep_color, schema

STEPS = 60
MAX_STEPS = 1000


class Refine(io.ComfyNode):
    """Optimises the pixels of stylized images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Refine",
            "AdaAttN Refine",
            aliases=["refine style", "brush strokes", "brushwork", "optimize pixels"],
            description="Optimises the pixels of a stylized picture until the strokes of the style show. 60 steps take "
            "about a minute for 512 x 512 pixels on two CPU cores, and seconds on a GPU. VGG-19, which it needs, is "
            "built in.",
            inputs=[
                io.Image.Input(
                    "image", display_name="image",
                    tooltip="The picture to refine, usually the result of AdaAttN Stylize or Decode AdaAttN. The "
                    "content works too.",
                ),
                io.Image.Input(
                    "content", display_name="content",
                    tooltip="The picture that was repainted, with the size of the image: one for the whole batch, or "
                    "one for each image.",
                ),
                io.Image.Input(
                    "style", display_name="style",
                    tooltip="The picture whose style is used: one for the whole batch, or one for each image.",
                ),
                io.Int.Input(
                    "steps", display_name="steps", default=STEPS, min=0, max=MAX_STEPS, step=1,
                    tooltip="More steps give stronger strokes and take longer. 60 to 100 are usual. 0 gives the image "
                    "unchanged.",
                ),
                call_supported(
                    io.Float.Input, "content_weight", display_name="content weight", default=0.0, min=0.0, max=20.0,
                    step=0.1, advanced=True,
                    tooltip="How strictly the shapes of the content are kept: 0 is neutral, 1 and more keep them more "
                    "strictly.",
                ),
                io.Mask.Input(
                    "mask", display_name="mask", optional=True,
                    tooltip="Where to refine: white areas get the strokes of the style, black areas become exactly the "
                    "content. The mask can have any size; it is resized to the content.",
                ),
                keep_color(),
            ],
            outputs=[io.Image.Output("refined", display_name="image", tooltip="The refined picture.")],
        )  # fmt: skip

    @classmethod
    @told
    def execute(
        cls,
        image: Tensor,
        content: Tensor,
        style: Tensor,
        steps: int = STEPS,
        content_weight: float = 0.0,
        mask: Tensor | None = None,
        keep_color: bool = False,
    ) -> io.NodeOutput:
        pictures = opacity.visible_color(to_pictures(image, "image"), to_alpha(image))
        contents = opacity.visible_color(to_pictures(content, "content"), to_alpha(content))
        picture, part = to_style(style, None)
        if len(pictures) == 1 < len(picture):  # one picture is refined in each of the styles
            pictures, image = (repeat(one, [0] * len(picture)) for one in (pictures, image))
        contents, content = (repeat(one, [0] * len(pictures)) if len(one) == 1 else one for one in (contents, content))
        fitted = fit_content_mask(mask, contents, name="mask")
        progress = bridge.NodeProgress()
        result = refined(
            pictures, contents, [picture], progress, progress, steps=steps, content_weight=content_weight,
            content_mask=fitted, style_masks=[part], keep_color=keep_color, strength=painted_strength(1.0, fitted),
        )  # fmt: skip
        if to_alpha(image) is None:
            return io.NodeOutput(with_hidden(result, content, fitted, 1.0 if steps else 0.0))
        return io.NodeOutput(with_alpha(result, to_alpha(image)))


def refined(
    pictures: Tensor,
    contents: Tensor,
    styles: Sequence[Tensor],
    share: ProgressCallback | None,
    display: bridge.NodeProgress,
    **options: Any,  # noqa: ANN401 (the other arguments of `refine`)
) -> Tensor:
    """Pictures (B, 3, H, W) -> refined IMAGE.

    Args:
        pictures, contents, styles: see `refine`.
        share: called with the fraction of the refinement that is completed.
        display: shows a preview after each step.
        options: the other arguments of `refine`.
    """
    network = files.read_encoder(files.BUILT_IN_VGG, bridge.find_file)
    part = bridge.part(network, files.encoder_config(network))
    memory = refine.memory_needed(contents.shape[-2], contents.shape[-1])
    image = bridge.empty_image(contents)
    with bridge.loaded([part], contents, memory=memory):
        result = refine.refine(
            pictures, contents, styles, vgg=part.module, progress=share, preview=display.show, **options
        )
    image[:] = to_image(result)
    return image
