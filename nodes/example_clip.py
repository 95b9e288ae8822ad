"""The node AdaAttN Example Clip: a bundled clip with sound, so that the example workflow runs without a file."""

from __future__ import annotations

from comfy_api.latest import InputImpl, io

from .core import errors
from .examples import FOLDER
from .outcome import told
from .sockets import schema

CLIPS = tuple(sorted(path.stem for path in FOLDER.glob("*.mp4")))


class ExampleClip(io.ComfyNode):
    """A bundled clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ExampleClip",
            "AdaAttN Example Clip",
            aliases=["sample video", "demo clip", "test video"],
            description="A short clip with sound that comes with AdaAttN and is free to use. Replace this node by Load "
            "Video to use a clip of your own.",
            inputs=[
                io.Combo.Input(
                    "clip", display_name="clip", options=list(CLIPS), default=CLIPS[0],
                    tooltip="shore is a pan of 3 seconds over a painting, with the sound of waves.",
                )
            ],
            outputs=[io.Video.Output("video", display_name="video", tooltip="The clip, with its sound.")],
        )  # fmt: skip

    @classmethod
    @told
    def execute(cls, clip: str) -> io.NodeOutput:
        if clip not in CLIPS:
            raise ValueError(f"the clip is {errors.quoted(str(clip))}; one of {', '.join(CLIPS)} is needed")
        path = FOLDER / f"{clip}.mp4"
        if not path.is_file():
            raise ValueError(f"{path.name} does not exist in the folder examples of this pack; install it again")
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)))
