"""The library, imported relative to the pack.

ComfyUI imports the pack under the path of its folder, and another version of adaattn_core may be installed, so that an
absolute import would be wrong. Type checkers do not know that name; for them the same modules are imported directly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaattn_core import StyleTransferModel, encode_style, errors, stylize
    from adaattn_core.checkpoints import model_file, published, tensor_file, vgg
    from adaattn_core.inference import (
        attention_map,
        batching,
        chunked,
        coarse_to_fine,
        memory_budget,
        mixing,
        refine,
        stages,
        temporal,
        validation,
    )
    from adaattn_core.inference.stylize import KeptStyles, encode_reduced
    from adaattn_core.io import images
    from adaattn_core.io.files import atomic_path
    from adaattn_core.models import config, cost, encoder, fusion, model
    from adaattn_core.models.fusion import StyleFeatures
    from adaattn_core.ops import layout, masks, opacity, resize
    from adaattn_core.runtime import remarks
    from adaattn_core.runtime.kept import Kept, Shelf, digest
    from adaattn_core.runtime.memory import memory_in_use
    from adaattn_core.runtime.progress import ProgressCallback, sub_progress
    from adaattn_core.viewer import view_data
else:
    from ..adaattn_core import StyleTransferModel, encode_style, errors, stylize
    from ..adaattn_core.checkpoints import model_file, published, tensor_file, vgg
    from ..adaattn_core.inference import (
        attention_map,
        batching,
        chunked,
        coarse_to_fine,
        memory_budget,
        mixing,
        refine,
        stages,
        temporal,
        validation,
    )
    from ..adaattn_core.inference.stylize import KeptStyles, encode_reduced
    from ..adaattn_core.io import images
    from ..adaattn_core.io.files import atomic_path
    from ..adaattn_core.models import config, cost, encoder, fusion, model
    from ..adaattn_core.models.fusion import StyleFeatures
    from ..adaattn_core.ops import layout, masks, opacity, resize
    from ..adaattn_core.runtime import remarks
    from ..adaattn_core.runtime.kept import Kept, Shelf, digest
    from ..adaattn_core.runtime.memory import memory_in_use
    from ..adaattn_core.runtime.progress import ProgressCallback, sub_progress
    from ..adaattn_core.viewer import view_data

__all__ = [
    "Kept",
    "KeptStyles",
    "ProgressCallback",
    "Shelf",
    "StyleFeatures",
    "StyleTransferModel",
    "atomic_path",
    "attention_map",
    "batching",
    "chunked",
    "coarse_to_fine",
    "config",
    "cost",
    "digest",
    "encode_reduced",
    "encode_style",
    "encoder",
    "errors",
    "fusion",
    "images",
    "layout",
    "masks",
    "memory_budget",
    "memory_in_use",
    "mixing",
    "model",
    "model_file",
    "opacity",
    "published",
    "refine",
    "remarks",
    "resize",
    "stages",
    "stylize",
    "sub_progress",
    "temporal",
    "tensor_file",
    "validation",
    "vgg",
    "view_data",
]
