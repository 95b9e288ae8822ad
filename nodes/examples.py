"""The node AdaAttN Example Picture: bundled pictures, so that the example workflows run without a file of the user."""

from __future__ import annotations

from pathlib import Path

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from .core import errors, images
from .outcome import told
from .pictures import to_image
from .sockets import schema

FOLDER = Path(__file__).parents[1] / "examples"
PICTURES = tuple(sorted(path.stem for path in FOLDER.glob("*.jpg")))
MAX_FRAMES = 120
PAN_SCALE = 0.75
"""Sides of the frames of a pan relative to those of the picture."""


class ExamplePicture(io.ComfyNode):
    """A bundled photograph or painting, or a pan over it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ExamplePicture",
            "AdaAttN Example Picture",
            aliases=["sample image", "demo picture", "test image"],
            description="A photograph or a painting that comes with AdaAttN and is free to use. Replace this node by "
            "Load Image to use a picture of your own.",
            inputs=[
                io.Combo.Input(
                    "picture", display_name="picture", options=list(PICTURES), default="coffee",
                    tooltip="astronaut, chelsea (a cat), coffee and rocket are photographs. The others are paintings "
                    "and woodcuts; examples/SOURCES.csv lists their sources.",
                ),
                io.Int.Input(
                    "frames", display_name="frames", default=1, min=1, max=MAX_FRAMES, step=1,
                    tooltip="1 gives the whole picture. A larger number gives that many frames of a slow pan over it, "
                    "to try a clip.",
                ),
            ],
            outputs=[
                io.Image.Output("image", display_name="image", tooltip="The picture, or the frames of the pan."),
                io.Mask.Output(
                    "subject", display_name="subject",
                    tooltip="A mask that is white on the main subject of the picture. It was drawn for astronaut, "
                    "auvers, coffee, great_wave, ramparts and summertime, and is white everywhere for the others.",
                ),
            ],
            is_output_node=True,  # otherwise the page shows no preview of a picture that the host has cached
        )  # fmt: skip

    @classmethod
    @told
    def execute(cls, picture: str, frames: int) -> io.NodeOutput:
        if not 1 <= frames <= MAX_FRAMES:
            raise ValueError(f"frames is {frames}; 1 to {MAX_FRAMES} are needed")
        image, subject = (pan(part, frames) for part in example(picture))
        shown = to_image(image)
        return io.NodeOutput(shown, subject[:, 0], ui=ui.PreviewImage(shown[:1], cls=cls))


def example(name: str) -> tuple[Tensor, Tensor]:
    """A bundled picture (1, 3, H, W) and the mask of its subject (1, 1, H, W); all white for pictures without one.

    Raises:
        ValueError: not one of PICTURES. ComfyUI checks only what is typed into a widget, not what is linked to it.
    """
    if name not in PICTURES:
        raise ValueError(f"the picture is {errors.quoted(str(name))}; one of {', '.join(PICTURES)} is needed")
    picture = images.load_image(FOLDER / f"{name}.jpg")
    drawn = FOLDER / "masks" / f"{name}.png"
    return picture, images.load_mask(drawn) if drawn.is_file() else torch.ones_like(picture[:, :1])


def pan(picture: Tensor, frames: int) -> Tensor:
    """Frames cut from a picture along a slow pan from its top left to its bottom right corner.

    Args:
        picture: (1, C, H, W).
        frames: how many; 1 gives the whole picture.

    Returns:
        (frames, C, h, w); of more than one frame, h and w are even, as video encoders need.
    """
    if frames == 1:
        return picture
    height, width = picture.shape[-2:]
    rows, columns = (int(side * PAN_SCALE) // 2 * 2 for side in (height, width))
    cuts = []
    for frame in range(frames):
        share = frame / (frames - 1)
        top, left = round((height - rows) * share), round((width - columns) * share)
        cuts.append(picture[..., top : top + rows, left : left + columns])
    return torch.cat(cuts)
