"""torchvision's networks, fetched from a server on this machine in place of the true one."""

from __future__ import annotations

import errno
import hashlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import adaattn_core.checkpoints.hub
from adaattn_core.checkpoints.hub import cached_file, torchvision_tensors
from adaattn_core.checkpoints.vgg import load_vgg
from adaattn_core.cli import main
from adaattn_core.errors import CheckpointError


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address and folder of a server; what it has been asked for is gone when the test is."""
    folder = tmp_path / "server"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """torchvision's entry for VGG-19; its address is to be set. What torch caches lies in tmp_path."""
    from torchvision.models import VGG19_Weights  # type: ignore[import-untyped]

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    entry = VGG19_Weights.IMAGENET1K_V1
    monkeypatch.setattr(entry.value, "url", entry.url)
    return entry


def offer(folder: Path, digest: str | None = None) -> str:
    """A small file of weights in the server's folder, called after its hash (or another); returns its name."""
    torch.save({"features.0.weight": torch.ones(2)}, folder / "new.pth")
    found = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()[:8]
    return (folder / "new.pth").rename(folder / f"vgg19-{digest or found}.pth").name


def home_files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "home").rglob("*") if path.is_file())


def test_a_file_is_fetched_once_and_kept(
    server: tuple[str, Path], weights: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, folder = server
    name = offer(folder)
    weights.value.url = f"{address}/{name}"
    first = torchvision_tensors(weights, "VGG-19")
    (folder / name).unlink()
    assert torchvision_tensors(weights, "VGG-19").keys() == first.keys() == {"features.0.weight"}
    assert home_files(tmp_path) == [name] and cached_file(weights).is_file()
    told = capsys.readouterr()
    assert told.out == "" and f"{address}/{name}" in told.err, "stdout belongs to the command"


@pytest.mark.parametrize("kind", ["wrong hash", "not found", "nobody there"])
def test_what_is_not_right_leaves_nothing_behind(
    kind: str, server: tuple[str, Path], weights: Any, tmp_path: Path
) -> None:
    address, folder = server
    name = offer(folder, "00000000")
    weights.value.url = {
        "wrong hash": f"{address}/{name}", "not found": f"{address}/x-{name}", "nobody there": f"http://127.0.0.1:9/{name}",
    }[kind]  # fmt: skip
    reason = {"wrong hash": "invalid hash value", "not found": "HTTP Error 404", "nobody there": "<urlopen error"}[kind]
    with pytest.raises(CheckpointError) as caught:
        load_vgg("torchvision")
    line = str(caught.value)
    assert line.startswith(f"VGG-19 could not be downloaded ({reason}") and "\n" not in line
    assert line.endswith(". Check the connection, or name a local file instead.")
    assert home_files(tmp_path) == []


def test_the_command_says_it_in_one_line(
    weights: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.value.url = "http://127.0.0.1:9/vgg19-dcbb9e9d.pth"
    for part in ("content", "style"):
        (tmp_path / part).mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / part / "a.png")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--content=content", "--style=style", "--vgg=torchvision", "--output=run"]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("adaattn: VGG-19 could not be downloaded (") and not (tmp_path / "run").exists()


def test_a_silent_server_is_given_up(weights: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(adaattn_core.checkpoints.hub, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        weights.value.url = f"http://127.0.0.1:{silent.getsockname()[1]}/vgg19-dcbb9e9d.pth"
        with pytest.raises(
            CheckpointError, match=r"^VGG-19 could not be downloaded \(.*timed out.*\)\. Check the conn"
        ):
            torchvision_tensors(weights, "VGG-19")
    assert socket.getdefaulttimeout() is None and home_files(tmp_path) == []


def test_a_kept_file_that_is_damaged_is_named(server: tuple[str, Path], weights: Any) -> None:
    address, folder = server
    name = offer(folder)
    weights.value.url = f"{address}/{name}"
    torchvision_tensors(weights, "VGG-19")
    file = cached_file(weights)
    for damage in (file.read_bytes()[:100], b"", b"no weights"):
        file.write_bytes(damage)
        with pytest.raises(CheckpointError) as caught:
            torchvision_tensors(weights, "VGG-19")
        line = str(caught.value)
        assert line.startswith(f"{file} is damaged (") and "\n" not in line
        assert line.endswith("). Delete it, so that VGG-19 is downloaded again.")


def test_a_full_disk_is_said(weights: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.hub.download_url_to_file", full)
    with pytest.raises(CheckpointError) as caught:
        torchvision_tensors(weights, "VGG-19")
    folder = tmp_path / "home" / "hub" / "checkpoints"
    assert str(caught.value) == (
        f"disk full while VGG-19 was downloaded to {folder}. Free some space, or set TORCH_HOME."
    )
