"""An ONNX graph that is written node by node, in plain Python: the package onnx is needed to save it, not here.

A value of the graph is known by its name, a string. Sizes are values too, so one graph serves pictures of every size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

Operand = str | float | list[int] | list[float] | np.ndarray
"""A value by its name; or a number, integers or an array, which become a constant."""

FLOAT_TYPES = {torch.float32: 1, torch.float16: 10}
"""torch's dtypes -> numbers of ONNX' TensorProto.DataType."""

LOOP_INDEX, LOOP_CONDITION = "index", "go_on"
"""Inputs of the body of a loop: the number of the round, and whether to go on."""


@dataclass(frozen=True)
class Node:
    """One operation."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, object]
    """Numbers, strings, lists, or a Graph, the body of a loop."""


@dataclass
class Graph:
    """Nodes and constants in the order in which they were written."""

    precision: Precision = "float32"
    """How weights are stored; see `weight`."""
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: dict[str, Shape] = field(default_factory=dict)
    outputs: dict[str, Shape] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    """Name of a weight -> the value in which it is read; two encoders share theirs."""
    numbers: Iterator[int] = field(default_factory=itertools.count)
    """Of the values; a body shares those of its graph, since it sees its values."""

    def op(self, kind: str, *operands: Operand, **attributes: object) -> str:
        """Adds an operation with one output, and returns its name."""
        return self.ops(kind, 1, *operands, **attributes)[0]

    def ops(self, kind: str, count: int, *operands: Operand, **attributes: object) -> tuple[str, ...]:
        """Adds an operation with `count` outputs, and returns their names."""
        names = tuple(self._named(operand) for operand in operands)
        outputs = tuple(f"{kind}_{next(self.numbers)}" for _ in range(count))
        self.nodes.append(Node(kind, names, outputs, attributes))
        return outputs

    def body(self) -> Graph:
        """An empty graph that sees the values of this one."""
        return Graph(self.precision, numbers=self.numbers)

    def output(self, name: str, value: str, shape: Shape) -> None:
        """Makes a value an output of the graph under a name of its own."""
        self.nodes.append(Node("Identity", (value,), (name,), {}))
        self.outputs[name] = shape

    def _named(self, operand: Operand) -> str:
        if isinstance(operand, str):
            return operand
        is_integers = isinstance(operand, list) and all(isinstance(number, int) for number in operand)
        array = (
            operand if isinstance(operand, np.ndarray) else np.array(operand, np.int64 if is_integers else np.float32)
        )
        return self._constant(f"constant_{next(self.numbers)}", array)

    def _constant(self, name: str, array: np.ndarray) -> str:
        self.constants[name] = array
        return name

    def weight(self, name: str, weight: Tensor) -> str:
        """A weight in its own dtype, stored in the graph's precision.

        float16 stores every weight in float16. int8 stores matrices and kernels as whole numbers from -127 to 127 with
        a scale for each output channel, the largest magnitude over 127, and biases in float32.

        Args:
            name: unique, such as that in the model's state dict.
            weight: float32 or float16, the dtype of the computation.
        """
        if name not in self.weights:
            self.weights[name] = self._stored(name, weight.detach().cpu().numpy())
        return self.weights[name]

    def _stored(self, name: str, array: np.ndarray) -> str:
        if self.precision == "int8" and array.ndim > 1:
            scale = np.abs(array).max(axis=tuple(range(1, array.ndim)), keepdims=True) / np.float32(127)
            whole = np.rint(array / np.maximum(scale, np.finfo(np.float32).tiny)).astype(np.int8)
            stored = self._constant(name, whole)
            return self.op("DequantizeLinear", stored, scale.reshape(-1).astype(np.float32), axis=0)
        if self.precision == "float16" and array.dtype == np.float32:
            stored = self._constant(name, array.astype(np.float16))
            return self.op("Cast", stored, to=FLOAT_TYPES[torch.float32])
        return self._constant(name, array)

    def cast(self, x: str, dtype: torch.dtype) -> str:
        """A value in another dtype; only graphs in float16 hold more than one."""
        return self.op("Cast", x, to=FLOAT_TYPES[dtype]) if self.precision == "float16" else x

    # Sizes: vectors of int64

    def size(self, x: str) -> str:
        """(height, width) of (B, C, H, W)."""
        return self.op("Slice", self.op("Shape", x), [2], [4])

    def halved(self, size: str, times: int) -> str:
        """A size after `times` poolings that round up."""
        step = 2**times
        return self.op("Div", self.op("Add", size, [step - 1]), [step])

    def element(self, vector: str, index: int) -> str:
        """One element of a vector, as a vector of length 1."""
        return self.op("Slice", vector, [index], [index + 1])

    def indices(self, count: str) -> str:
        """0, 1, ... below `count`, a vector of length 1."""
        zero, one = np.array(0, np.int64), np.array(1, np.int64)
        return self.op("Range", zero, self.op("Squeeze", count), one)


Shape = tuple[str | int, ...]
"""Of an input or output; a string names an axis of any length."""
