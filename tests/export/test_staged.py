"""Four graphs paint what `stylize` paints: at any size, any strength, and with the attention that it pays."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adaattn_core.checkpoints.model_file import load_model
from adaattn_core.export.staged import STAGES, staged_files, staged_graphs
from adaattn_core.inference.attention_map import attention_map
from adaattn_core.inference.stages import extract_features
from adaattn_core.inference.stylize import stylize
from adaattn_core.models.config import ModelConfig
from adaattn_core.models.model import StyleTransferModel
from tests.export.test_onnx import CONFIGS, STEP, needs_onnx
from tests.helpers.small_models import SMALL_VIDEO, picture, small_model

LARGEST_DOWNLOAD = 7_000_000
"""Bytes of the four files of the built-in model: a page that paints may load 8 MB in all."""

Values = dict[str, np.ndarray[Any, Any]]


class Painter:
    """The four files of a model in ONNX Runtime."""

    def __init__(self, files: dict[str, bytes]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the tests have the cores
        cpu = ["CPUExecutionProvider"]
        self.sessions = {
            stage: onnxruntime.InferenceSession(file, options, providers=cpu) for stage, file in files.items()
        }

    def run(self, stage: str, values: Values) -> Values:
        session = self.sessions[stage]
        names = [one.name for one in session.get_outputs()]
        wanted = {one.name: values[one.name] for one in session.get_inputs()}
        return dict(zip(names, session.run(names, wanted), strict=True))

    def features(self, image: Tensor) -> Values:
        return self.run("encoder", {"picture": image.numpy()})

    def attend(self, content: Tensor, style: Tensor) -> Values:
        values = self.run("style", self.features(style))
        return values | self.run("content", self.features(content) | values)

    def decode(self, content: Tensor, deep: Any, skip: Any) -> Any:
        return self.run("decoder", {"deep": deep, "skip": skip, "picture": content.numpy()})["pixels"]

    def paint(self, content: Tensor, style: Tensor, strength: float = 1.0) -> Any:
        """As `stylize`: features and the decoder's own error, both in proportion to the strength."""
        values = self.attend(content, style)
        own = [values["own_deep"], values["own_skip"]]
        fused = [values["fused_deep"], values["fused_skip"]]
        mixed = [mine + strength * (painted - mine) for mine, painted in zip(own, fused, strict=True)]
        unchanged = self.decode(content, *own)
        return (self.decode(content, *mixed) + (1 - strength) * (content.numpy() - unchanged)).clip(0, 1)


@needs_onnx
@pytest.mark.parametrize("config", [CONFIGS[name] for name in ("published", "built-in", "bounded")])
def test_four_graphs_paint_what_the_model_paints_at_every_size_and_strength(config: ModelConfig) -> None:
    model = small_model(config=config)
    painter = Painter(exact_files(model))
    for size, style_size, strength in (((16, 16), (16, 16), 1.0), ((17, 41), (50, 16), 0.3), ((64, 48), (33, 65), 0.0)):
        content, style = picture(*size), picture(*style_size, seed=1)
        wanted = stylize(model, content, style, strength=strength).numpy()
        assert np.abs(painter.paint(content, style, strength) - wanted).max() < STEP, size


def exact_files(model: StyleTransferModel) -> dict[str, bytes]:
    """With weights in float32: random weights are more sensitive to rounding than trained ones."""
    import onnx

    from adaattn_core.export.onnx_file import DEFAULT_OPSET, serialized

    graphs = staged_graphs(model, "float32")
    return {stage: serialized(onnx, graph, DEFAULT_OPSET, {}) for stage, graph in graphs.items()}


@needs_onnx
@pytest.mark.parametrize("level", ["relu3_1", "relu4_1", "relu5_1"])
def test_queries_and_keys_give_the_attention_that_the_library_shows(level: str) -> None:
    model = small_model(config=replace(CONFIGS["bounded"], style_cells=(2, 2, 1)))
    content, style = picture(48, 64), picture(64, 96, seed=1)
    values = Painter(exact_files(model)).attend(content, style)
    query, key = (torch.from_numpy(values[f"{level}_{name}"]) for name in ("query", "key"))
    step = {"relu3_1": 4, "relu4_1": 8, "relu5_1": 16}[level]
    point = (48 // step // 2) * (64 // step) + 1  # second column of the middle row
    place = (1.5 * step / 64, (48 // step // 2 + 0.5) * step / 48)
    seen, looked_at = (extract_features(model.encoder, image) for image in (content, style))
    wanted = attention_map(model.fusion, seen, looked_at, place, level).flatten()
    torch.testing.assert_close(torch.softmax(query[0, point] @ key[0].mT, dim=0), wanted, rtol=1e-3, atol=1e-6)


@needs_onnx
def test_the_built_in_model_paints_within_a_quarter_of_a_step_and_is_a_small_download() -> None:
    model = load_model("compact")
    files = staged_files(model, {"license": "CC0-1.0"})
    assert sum(map(len, files.values())) < LARGEST_DOWNLOAD
    content, style = picture(96, 80), picture(64, 112, seed=1)
    difference = np.abs(
        Painter(files).paint(content, style, 0.8) - stylize(model, content, style, strength=0.8).numpy()
    )
    assert difference.max() * 255 < 0.25  # weights rounded to float16


@needs_onnx
def test_every_file_names_its_licence() -> None:
    import onnx

    files = staged_files(small_model(), {"license": "CC0-1.0"})
    assert tuple(files) == STAGES
    for file in files.values():
        (entry,) = onnx.load_from_string(file).metadata_props
        assert (entry.key, entry.value) == ("license", "CC0-1.0")


def test_a_model_with_one_level_is_refused() -> None:
    with pytest.raises(ValueError, match="attention at relu3_1 alone; the stages need a model with three levels"):
        staged_graphs(small_model(config=SMALL_VIDEO))


def test_without_the_package_onnx_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r'pip install "adaattn\[onnx\]"'):
        staged_files(small_model())
