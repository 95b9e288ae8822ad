"""The library, from the folder beside this one: a pack is imported under a name of ComfyUI's choice, and another
version of adaattn_core may be installed. Type checkers, which know no such name, look at the same files directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaattn_core import (
        checkpoint,
        encode_style,
        encoder,
        fusion,
        heatmap,
        images,
        masks,
        memory,
        mixing,
        model,
        published,
        streaming,
        strips,
        stylize,
        windows,
    )
    from adaattn_core import painting as steps
else:
    from ..adaattn_core import (
        checkpoint,
        encode_style,
        encoder,
        fusion,
        heatmap,
        images,
        masks,
        memory,
        mixing,
        model,
        published,
        streaming,
        strips,
        stylize,
        windows,
    )
    from ..adaattn_core import painting as steps

__all__ = [
    "checkpoint",
    "encode_style",
    "encoder",
    "fusion",
    "heatmap",
    "images",
    "masks",
    "memory",
    "mixing",
    "model",
    "published",
    "steps",
    "streaming",
    "strips",
    "stylize",
    "windows",
]
