"""Which layer of a model gives NaN or infinity: looked for once a result holds some."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import NotFiniteError


def is_finite(values: Tensor) -> bool:
    """Whether there is neither NaN nor infinity. An accelerator is waited for."""
    return not values.numel() or bool(torch.stack(values.detach().aminmax()).isfinite().all())


def not_finite(part: str, module: nn.Module, run: Callable[[], object] | None = None) -> NotFiniteError:
    """The error of a part of a model whose result is not finite; it names the layer.

    Args:
        part: its name in the model.
        module: the part, whose precision the advice depends on.
        run: computes the result once more; None names the part alone.
    """
    layer = _first_layer(module, run) if run else ""
    narrow = any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in module.parameters())
    advice = "Compute it in float32." if narrow else "Its weights are too large: get the file again, or an earlier one."
    return NotFiniteError(f"{f'{part}.{layer}' if layer else part} of the model gives NaN or infinity. {advice}")


def _first_layer(module: nn.Module, run: Callable[[], object]) -> str:
    """The first layer of a module whose output is not finite; empty if it is none of its layers."""
    found: list[str] = []

    def look(name: str, _layer: nn.Module, _inputs: object, output: object) -> None:
        if not found and isinstance(output, Tensor) and not is_finite(output):
            found.append(name)

    layers = {name: layer for name, layer in module.named_modules() if not any(layer.children())}
    handles = [layer.register_forward_hook(partial(look, name)) for name, layer in layers.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return "".join(found)
