"""The list of the pack's nodes, as ComfyUI asks for it."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import bridge
from .apply import Apply
from .attention_map import AttentionMap
from .decode import Decode
from .example_clip import ExampleClip
from .examples import ExamplePicture
from .features import ExtractFeatures
from .loaders import LoadEncoder, LoadModel
from .mix import MixStyles
from .refine import Refine
from .regions import StyleRegion
from .stylize import Stylize
from .stylize_video import StylizeVideo


class AdaAttNExtension(ComfyExtension):
    """All nodes of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        bridge.register_folder()  # here, because older versions do not call on_load
        return [
            Stylize,
            StylizeVideo,
            StyleRegion,
            LoadModel,
            LoadEncoder,
            ExtractFeatures,
            Apply,
            MixStyles,
            Decode,
            Refine,
            AttentionMap,
            ExamplePicture,
            ExampleClip,
        ]
