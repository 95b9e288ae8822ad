"""Writing a model as ONNX files: one for content and style, or one for the style and one for the contents."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch

from ..io.files import atomic_path
from ..models.model import StyleTransferModel
from .attention import hand_on
from .check import Difference, check_files
from .graph import LOOP_CONDITION, LOOP_INDEX, PRECISIONS, Graph, Precision, Shape
from .network import encode_style, paint

MIN_OPSET, MAX_OPSET, DEFAULT_OPSET = 13, 21, 17
LARGEST_FILE = 2**31
"""Bytes of an ONNX file, a limit of its format."""

CONTENT, STYLE, STYLIZED = "content", "style", "stylized"
CONTENT_SHAPE: Shape = ("batch", 3, "height", "width")
STYLE_SHAPE: Shape = (1, 3, "style_height", "style_width")


class Exported(NamedTuple):
    """What was written."""

    paths: list[Path]
    difference: Difference
    """From PyTorch, in the pictures of the check."""


def onnx_package(name: Literal["onnx", "onnxruntime"]) -> ModuleType:
    """A package of the extra [onnx], imported when it is first used.

    Raises:
        ValueError: it is not installed.
    """
    try:
        if name == "onnx":
            import onnx

            return onnx
        import onnxruntime

        return cast(ModuleType, onnxruntime)
    except ImportError as error:
        raise ValueError(
            "adaattn export and adaattn demo need the packages onnx and onnxruntime. Install them: "
            'pip install "adaattn[onnx]"'
        ) from error


def output_paths(path: Path, split: bool) -> list[Path]:
    """The files of an export.

    >>> [path.name for path in output_paths(Path("model.onnx"), split=True)]
    ['model-style.onnx', 'model-content.onnx']

    Raises:
        ValueError: the path does not end in .onnx.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"{path} does not end in .onnx, as an ONNX file has to. Rename the output.")
    return [path.with_name(f"{path.stem}-{part}.onnx") for part in (STYLE, CONTENT)] if split else [path]


def export_onnx(
    model: StyleTransferModel,
    path: Path,
    *,
    precision: Precision = "float32",
    opset: int = DEFAULT_OPSET,
    split: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Exported:
    """Write a model as ONNX, checked against PyTorch; completely or not at all.

    Args:
        model: on the CPU, in float32.
        path: ends in .onnx; see `output_paths` for `split`.
        precision: of the stored weights. In float16 the merge and the decoder also compute in it, as those of
            `StyleTransferModel.set_precision`; inputs and outputs are float32 always.
        opset: version of ONNX' operators, 13 to 21.
        split: two files: one turns a style into keys and values, the other paints contents with these.
        metadata: further entries of the files, such as `license`.

    Raises:
        ValueError: an argument out of its range, a package that is not installed, or a model that is too large.
        ExportError: ONNX Runtime paints other pictures than PyTorch.
        OutputError: a file cannot be written.
    """
    _check_arguments(model, precision, opset)
    onnx, onnxruntime = onnx_package("onnx"), onnx_package("onnxruntime")
    paths = output_paths(path, split)
    graphs = build_graphs(model, precision, split)
    config = json.dumps(model.config.to_dict())
    entries = {"architecture": "AdaAttN", "config": config, "precision": precision, **(metadata or {})}
    with ExitStack() as stack:
        temporary = [stack.enter_context(atomic_path(one)) for one in paths]
        for file, graph in zip(temporary, graphs, strict=True):
            file.write_bytes(serialized(onnx, graph, opset, entries))
        difference = check_files(model, temporary, precision, onnxruntime, path)
    return Exported(paths, difference)


def _check_arguments(model: StyleTransferModel, precision: str, opset: int) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; known are {', '.join(PRECISIONS)}")
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ValueError(f"opset is {opset}; it must be between {MIN_OPSET} and {MAX_OPSET}")
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if size >= LARGEST_FILE:
        raise ValueError(f"the model has {size / 1e9:.1f} GB of weights; an ONNX file holds at most 2 GB")


def build_graphs(model: StyleTransferModel, precision: Precision, split: bool) -> list[Graph]:
    """The graph of the whole model, or with `split` those of the style and of the contents."""
    if precision == "float16":
        model = copy.deepcopy(model).set_precision(torch.float16)
    graph = Graph(precision, inputs={STYLE: STYLE_SHAPE})
    styles = encode_style(graph, STYLE, model)
    if not split:
        graph.inputs = {CONTENT: CONTENT_SHAPE, STYLE: STYLE_SHAPE}
        graph.output(STYLIZED, paint(graph, CONTENT, styles, model), CONTENT_SHAPE)
        return [graph]
    handed_on = {
        level: hand_on(graph, level, model.fusion.level_attention(level), values) for level, values in styles.items()
    }
    painter = Graph(precision, inputs={CONTENT: CONTENT_SHAPE, **graph.outputs})
    painter.output(STYLIZED, paint(painter, CONTENT, handed_on, model), CONTENT_SHAPE)
    return [graph, painter]


def serialized(onnx: ModuleType, graph: Graph, opset: int, metadata: Mapping[str, str]) -> bytes:
    """The bytes of an ONNX file, checked by the package onnx."""
    opsets = [onnx.helper.make_opsetid("", opset)]
    floats = onnx.TensorProto.FLOAT
    inputs = {name: (floats, shape) for name, shape in graph.inputs.items()}
    outputs = {name: (floats, shape) for name, shape in graph.outputs.items()}
    proto = onnx.helper.make_model(
        _graph_proto(onnx, graph, "adaattn", inputs, outputs),
        opset_imports=opsets,
        ir_version=onnx.helper.find_min_ir_version_for(opsets),  # older runtimes refuse a newer one
        producer_name="adaattn",
    )
    onnx.helper.set_model_props(proto, dict(metadata))
    onnx.checker.check_model(proto, full_check=True)
    serialized: bytes = proto.SerializeToString()
    return serialized


Values = dict[str, tuple[int, Shape]]
"""Name -> ONNX' number of the type, and the shape."""


def _graph_proto(onnx: ModuleType, graph: Graph, name: str, inputs: Values, outputs: Values) -> Any:  # noqa: ANN401 (onnx is optional)
    """The graph as onnx.GraphProto."""
    nodes = []
    for node in graph.nodes:
        attributes = {
            key: _loop_body(onnx, value) if isinstance(value, Graph) else value
            for key, value in node.attributes.items()
        }
        nodes.append(onnx.helper.make_node(node.kind, node.inputs, node.outputs, node.outputs[0], **attributes))
    infos = [
        [onnx.helper.make_tensor_value_info(key, kind, shape) for key, (kind, shape) in values.items()]
        for values in (inputs, outputs)
    ]
    constants = [onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), key)
                 for key, array in graph.constants.items()]  # fmt: skip
    return onnx.helper.make_graph(nodes, name, *infos, constants)


def _loop_body(onnx: ModuleType, body: Graph) -> Any:  # noqa: ANN401 (onnx is optional)
    types = onnx.TensorProto
    inputs: Values = {LOOP_INDEX: (types.INT64, ()), LOOP_CONDITION: (types.BOOL, ())}
    (condition, _), (part, shape) = body.outputs.items()
    return _graph_proto(onnx, body, "chunk", inputs, {condition: (types.BOOL, ()), part: (types.FLOAT, shape)})
