"""AdaAttN: arbitrary style transfer by attention-weighted statistics.

from adaattn_core import load_image, load_model, refine, save_image, stylize
content, style = load_image("photo.jpg"), load_image("painting.jpg")
save_image(stylize(load_model(), content, style), "out.png")
save_image(refine(load_image("out.png"), content, style), "finer.png")  # the strokes of the style; a minute or more
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoints.model_file import load_model, save_model
    from .checkpoints.published import convert_published
    from .checkpoints.vgg import load_vgg
    from .errors import AdaAttNError, CheckpointError, ImageError, OutputError
    from .inference.refine import refine
    from .inference.stylize import encode_style, stylize
    from .io.images import load_image, load_mask, save_image
    from .models.config import ModelConfig
    from .models.model import StyleTransferModel

__version__ = "0.2.0"

__all__ = [
    "AdaAttNError",
    "CheckpointError",
    "ImageError",
    "ModelConfig",
    "OutputError",
    "StyleTransferModel",
    "convert_published",
    "encode_style",
    "load_image",
    "load_mask",
    "load_model",
    "load_vgg",
    "refine",
    "save_image",
    "save_model",
    "stylize",
]

_MODULES = {
    "AdaAttNError": "errors",
    "CheckpointError": "errors",
    "ImageError": "errors",
    "ModelConfig": "models.config",
    "OutputError": "errors",
    "StyleTransferModel": "models.model",
    "convert_published": "checkpoints.published",
    "encode_style": "inference.stylize",
    "load_image": "io.images",
    "load_mask": "io.images",
    "load_model": "checkpoints.model_file",
    "load_vgg": "checkpoints.vgg",
    "refine": "inference.refine",
    "save_image": "io.images",
    "save_model": "checkpoints.model_file",
    "stylize": "inference.stylize",
}
"""Public name -> the module that defines it, imported when the name is first used: the command line starts, and can be
interrupted, before torch is there."""


_PACKAGES = ("checkpoints", "errors", "inference", "io", "models", "ops", "runtime")


def __getattr__(name: str) -> object:
    module = _MODULES.get(name) or (name if name in _PACKAGES else None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    imported = import_module(f".{module}", __name__)
    globals()[name] = getattr(imported, name) if name in _MODULES else imported
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
