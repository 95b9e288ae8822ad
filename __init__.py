"""ComfyUI's entry point to the AdaAttN node pack. Importing it does nothing, so that pytest may collect the folder."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint() -> Any:  # noqa: ANN401 (a ComfyExtension, which only the host can name)
    """What ComfyUI asks for after importing the pack."""
    from .nodes.extension import AdaAttNExtension

    return AdaAttNExtension()
