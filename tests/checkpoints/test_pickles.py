"""Pickled weights files: tensors are read, and code is never executed."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adaattn_core.checkpoints.tensor_file import read_tensors
from tests.helpers.refused_files import refused


class Dangerous:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("plain", [False, True], ids=["torch.save", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path: Path, plain: bool) -> None:
    path, marker = tmp_path / "model.pth", tmp_path / "executed"
    if plain:
        path.write_bytes(pickle.dumps(Dangerous(marker)))
    else:
        torch.save({"weight": Dangerous(marker)}, path)
    text = (
        r".*model\.pth is a pickle that holds more than tensors, or is damaged; it was not executed\. Get the file .*"
    )
    refused(lambda: read_tensors(path), text)
    assert not marker.exists()


def test_the_dangerous_pickle_is_dangerous(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Dangerous(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


def test_a_state_dict_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / "a.pth")
    assert torch.equal(read_tensors(tmp_path / "a.pth")["a"], torch.arange(3.0))


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"state": {"a": torch.zeros(2)}}, {"a": torch.zeros(2), "n": 3}])
def test_a_pth_that_is_no_state_dict(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    refused(
        lambda: read_tensors(tmp_path / "a.pth"), r".*a\.pth holds no flat dict of tensors; a state dict is needed\."
    )


@pytest.mark.parametrize("share", [0.2, 0.5, 0.98])
def test_a_truncated_pth(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refused(
        lambda: read_tensors(path), r".*a\.pth is (truncated or not a weights file\. Download it again|a pickle .*)\."
    )
