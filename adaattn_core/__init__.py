"""AdaAttN: arbitrary style transfer by attention-weighted statistics.

from adaattn_core import load_image, load_model, refine, save_image, stylize
content, style = load_image("photo.jpg"), load_image("painting.jpg")
save_image(stylize(load_model(), content, style), "out.png")
save_image(refine(load_image("out.png"), content, style), "finer.png")  # the strokes of the style; a minute or more
"""

from .checkpoints.model_file import load_model, save_model
from .checkpoints.published import convert_published
from .checkpoints.vgg import load_vgg
from .errors import CheckpointError, ImageError
from .inference.refine import refine
from .inference.stylize import encode_style, stylize
from .io.images import load_image, load_mask, save_image
from .models.config import ModelConfig
from .models.model import StyleTransferModel

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
    "refine",
    "save_image",
    "save_model",
    "stylize",
]
