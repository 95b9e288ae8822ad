"""The nodes Load AdaAttN Model and Load AdaAttN Encoder."""

from __future__ import annotations

from comfy_api.latest import io

from . import bridge, files
from .core import model_file, stages
from .outcome import told
from .sockets import AttentionType, DecoderType, EncoderType, schema


def model_input(default: str = files.BASE) -> io.Input:
    return io.Combo.Input(
        "model_name", display_name="model", options=files.model_choices(bridge.model_files()), default=default,
        tooltip="base (built in) paints the better pictures, compact (built in) takes a fourth of the time. built-in "
        "is the compact model of version 0.1, for older workflows. None of them needs a download. Your own models can "
        "be .safetensors files, or a folder with the published latest_net_*.pth files and vgg_normalised.pth, in "
        "models/adaattn of ComfyUI. Press R after you have added one.",
    )  # fmt: skip


class LoadModel(io.ComfyNode):
    """Loads a model as its three parts: encoder, attention and decoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LoadModel",
            "Load AdaAttN Model",
            aliases=["load style model", "style checkpoint"],
            description="Loads an AdaAttN model: an encoder that computes features of pictures, an attention that "
            "repaints these features, and a decoder that turns features into a picture.",
            inputs=[model_input()],
            outputs=[
                EncoderType.Output("encoder", display_name="encoder", tooltip="Connect to Extract AdaAttN Features."),
                AttentionType.Output("attention", display_name="attention", tooltip="Connect to Apply AdaAttN."),
                DecoderType.Output("decoder", display_name="decoder", tooltip="Connect to Decode AdaAttN."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None = None) -> str:
        return files.stamp(model_name, bridge.find_file)

    @classmethod
    @told
    def execute(cls, model_name: str) -> io.NodeOutput:
        loaded = files.read_model(model_name, bridge.find_file)
        fingerprints = (
            stages.ModelFingerprint(model_file.fingerprint(loaded.encoder), model_name),
            stages.ModelFingerprint(model_file.fingerprint(loaded.fusion), model_name),
        )
        return io.NodeOutput(
            *(bridge.part(one, loaded.config, *fingerprints) for one in (loaded.encoder, loaded.fusion, loaded.decoder))
        )


class LoadEncoder(io.ComfyNode):
    """Loads an encoder by itself."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "LoadEncoder",
            "Load AdaAttN Encoder",
            aliases=["load vgg", "vgg encoder"],
            description="Loads an encoder alone. An attention accepts only features of the encoder that it was trained "
            "with. Load AdaAttN Model gives you both and is nearly always the right node.",
            inputs=[
                io.Combo.Input(
                    "encoder_name", display_name="encoder", options=files.encoder_choices(bridge.model_files()),
                    default=files.BUILT_IN_VGG,
                    tooltip="VGG-19 (built in) is the encoder of the model base, and the VGG-19 that AdaAttN Refine "
                    "uses. compact (built in) is the encoder of the compact model, built-in that of version 0.1. "
                    "VGG-19 (torchvision) is downloaded when the node first runs (about 550 MB). Files in "
                    "models/adaattn of ComfyUI can be a VGG-19 as .pth or .safetensors, or a model, whose encoder is "
                    "used. Press R after you have added one.",
                )
            ],
            outputs=[
                EncoderType.Output("encoder", display_name="encoder", tooltip="Connect to Extract AdaAttN Features."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, encoder_name: str | None = None) -> str:
        return files.stamp(encoder_name, bridge.find_file)

    @classmethod
    @told
    def execute(cls, encoder_name: str) -> io.NodeOutput:
        loaded = files.read_encoder(encoder_name, bridge.find_file)
        fingerprint = stages.ModelFingerprint(model_file.fingerprint(loaded), encoder_name)
        return io.NodeOutput(bridge.part(loaded, files.encoder_config(loaded), fingerprint))
