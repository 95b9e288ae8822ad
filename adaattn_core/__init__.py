"""AdaAttN: arbitrary style transfer by attention-weighted statistics.

from adaattn_core import load_image, load_model, save_image, stylize
save_image(stylize(load_model(), load_image("photo.jpg"), load_image("painting.jpg")), "out.png")
"""

from .checkpoint import CheckpointError, load_model, save_model
from .images import ImageError, load_image, load_mask, save_image
from .model import ModelConfig, StyleTransferModel
from .published import convert_published, load_vgg
from .stylize import encode_style, stylize

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ImageError",
    "ModelConfig",
    "StyleTransferModel",
    "convert_published",
    "encode_style",
    "load_image",
    "load_mask",
    "load_model",
    "load_vgg",
    "save_image",
    "save_model",
    "stylize",
]
