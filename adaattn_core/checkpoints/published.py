"""Conversion of published AdaAttN checkpoints: image, region-mask and video layout, recognised by their keys.

Conversion is strict: an unknown or missing key is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import CheckpointError, quoted
from ..models.config import VIDEO_LEVELS, ModelConfig
from ..models.model import StyleTransferModel
from .model_file import build_on_meta, load_strict, prepare_for_inference
from .tensor_file import read_tensors
from .vgg import load_vgg

ATTENTION_FILES = ("latest_net_adaattn_3.pth", "latest_net_attn_adain_3.pth")
"""File of the relu3_1 attention in the image layout, and in the region-mask layout."""
TRANSFORMER_FILE = "latest_net_transformer.pth"
DECODER_FILE = "latest_net_decoder.pth"

PROJECTIONS = {"f": "query_proj", "g": "key_proj", "h": "value_proj"}
IMAGE_DECODER = {
    "decoder_layer_1.1": "deep",
    "decoder_layer_2.1": "blocks.0.0",
    "decoder_layer_2.4": "blocks.0.1",
    "decoder_layer_2.7": "blocks.0.2",
    "decoder_layer_2.10": "blocks.0.3",
    "decoder_layer_2.14": "blocks.1.0",
    "decoder_layer_2.17": "blocks.1.1",
    "decoder_layer_2.21": "blocks.2.0",
    "decoder_layer_2.24": "blocks.2.1",
}
VIDEO_DECODER = {key.replace("decoder_layer_2", "decoder"): name for key, name in list(IMAGE_DECODER.items())[1:]}


def _attention_table(prefix: str, level: str) -> dict[str, str]:
    return {f"{prefix}{name}": f"fusion.attention.{level}.{projection}" for name, projection in PROJECTIONS.items()}


SHALLOW_TABLE = _attention_table("", "relu3_1")
DEEP_TABLE = {
    **_attention_table("attn_adain_4_1.", "relu4_1"),
    **_attention_table("attn_adain_5_1.", "relu5_1"),
    "merge_conv": "fusion.merge_conv",
}
"""Tables: published module name -> name in `StyleTransferModel`."""


def convert_published(folder: str | Path, encoder: str | Path) -> StyleTransferModel:
    """The model of a folder of published checkpoints, of any of the three layouts.

    Args:
        folder: holds latest_net_transformer.pth, latest_net_decoder.pth and, for the image layouts,
            latest_net_adaattn_3.pth (region-mask layout: latest_net_attn_adain_3.pth).
        encoder: the vgg_normalised.pth that the checkpoints were trained with.

    Returns:
        a full-size model, ready for inference.

    Raises:
        CheckpointError: a file is missing, damaged, or has an unknown layout.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder. Name the folder that holds {TRANSFORMER_FILE} and {DECODER_FILE}."
        )
    transformer, decoder = read_tensors(folder / TRANSFORMER_FILE), read_tensors(folder / DECODER_FILE)
    if "f.weight" in transformer:
        config = ModelConfig(levels=VIDEO_LEVELS, similarity="cosine")
        tensors = rename_tensors(transformer, SHALLOW_TABLE, folder / TRANSFORMER_FILE)
        decoder_table = VIDEO_DECODER
    elif "attn_adain_4_1.f.weight" in transformer:
        config = ModelConfig()
        shallow = _shallow_file(folder)
        tensors = rename_tensors(read_tensors(shallow), SHALLOW_TABLE, shallow)
        tensors |= rename_tensors(transformer, DEEP_TABLE, folder / TRANSFORMER_FILE)
        decoder_table = IMAGE_DECODER
    else:
        raise CheckpointError(
            f"{folder / TRANSFORMER_FILE} is of no published layout: no f.weight and no attn_adain_4_1.f.weight."
        )
    tensors |= rename_tensors(
        decoder, {key: f"decoder.{name}" for key, name in decoder_table.items()}, folder / DECODER_FILE
    )
    tensors |= {f"encoder.{key}": value for key, value in load_vgg(encoder).state_dict().items()}
    model = build_on_meta(config)
    load_strict(model, tensors, str(folder))
    return prepare_for_inference(model)


def _shallow_file(folder: Path) -> Path:
    for name in ATTENTION_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"{folder} holds neither {' nor '.join(ATTENTION_FILES)}; the image model needs one of them.")


def rename_tensors(tensors: Mapping[str, Tensor], table: Mapping[str, str], source: Path) -> dict[str, Tensor]:
    """Weights and biases, renamed by a table of modules: published name -> name in `StyleTransferModel`.

    Raises:
        CheckpointError: a key that is not in the table.
    """
    output = {}
    for key, value in tensors.items():
        module, _, part = key.rpartition(".")
        if module not in table or part not in ("weight", "bias"):
            raise CheckpointError(f"{source} holds {quoted(key)}, which no published layout has. Is it the right file?")
        output[f"{table[module]}.{part}"] = value
    return output
