"""ArtFID, by its authors' package `art-fid`, which wants every picture as a file.

Source: Wright & Ommer, "ArtFID: Quantitative Evaluation of Neural Style Transfer", GCPR 2022.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from torch import Tensor

from ..io.images import save_image


class ArtFIDError(Exception):
    """ArtFID cannot be had; one line says why."""


def art_fid(pictures: Iterable[tuple[Tensor, Tensor, Tensor]], folder: Path, device: str) -> float:
    """(1 + LPIPS to the contents) (1 + FID to the styles) of all pictures together.

    Args:
        pictures: stylised, content and style of each pair, (1, 3, H, W) each.
        folder: room for them as files; they are removed afterwards.
        device: "cpu" or "cuda".

    Raises:
        ArtFIDError: no package, no weights.
    """
    package = _package()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".artfid-") as room:
        folders = [Path(room, name) for name in ("stylized", "style", "content")]
        for path in folders:
            path.mkdir()
        for index, (stylized, content, style) in enumerate(pictures):
            for picture, path in zip((stylized, style, content), folders, strict=True):
                save_image(picture, path / f"{index:06d}.png")
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                stylized_folder, style_folder, content_folder = map(str, folders)
                return float(
                    package.compute_art_fid(
                        stylized_folder, style_folder, content_folder, batch_size=1, device=device, mode="art_fid"
                    )
                )
        except (OSError, RuntimeError, ValueError) as error:  # no connection, a cut download, too few pictures
            raise ArtFIDError(f"the art-fid package failed ({' '.join(str(error).split())[:200]})") from error


def _package() -> ModuleType:
    try:
        return importlib.import_module("art_fid.art_fid")
    except ImportError as error:
        raise ArtFIDError(f"its package cannot be imported ({error}): pip install art-fid") from error
