"""Fixtures that are too dear to make twice, or that every test needs."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from adaattn_core.runtime import remarks
from tests.helpers.golden_oracle import write_published_files

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # one core for each worker: with more threads than cores they wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

if hasattr(signal, "SIGHUP"):  # nohup ignores it, and a shell's "&" SIGINT: the tests send both to child processes
    for number, handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with files in every published layout: vgg_normalised.pth and the folders AdaAttN (image model),
    region (the same weights as the region-mask demo names them) and attn_adain_video. 146 MB, removed at the end."""
    folder = tmp_path_factory.mktemp("published")
    write_published_files(folder)
    (folder / "region").mkdir()
    for name in ("adaattn_3", "transformer", "decoder"):
        renamed = name.replace("adaattn_3", "attn_adain_3")
        os.link(folder / "AdaAttN" / f"latest_net_{name}.pth", folder / "region" / f"latest_net_{renamed}.pth")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def remarks_of_other_tests_are_forgotten() -> None:
    """Each remark is logged once in a process, and tests name their files alike."""
    remarks._said.clear()
