"""`adaattn demo`: the page that it writes or serves, and each kind of trouble in one line."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adaattn_core.checkpoints.model_file import save_model
from adaattn_core.cli import main
from adaattn_core.demo import web_runtime
from adaattn_core.demo.server import HEADERS, SiteServer
from adaattn_core.errors import DownloadError
from tests.export.test_onnx import needs_onnx
from tests.helpers.small_models import SMALL_VIDEO, small_model

Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small model, and an empty cache beside it; nothing reaches the network."""
    monkeypatch.setattr(web_runtime, "cache_folder", lambda: tmp_path / "cache" / "adaattn")
    monkeypatch.setattr("adaattn_core.demo.web_runtime.urllib.request.urlopen", unreachable)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    save_model(small_model(), Path("m.safetensors"), metadata={"license": "CC0-1.0"})
    return tmp_path


def unreachable(*_arguments: object, **_options: object) -> Any:
    raise urllib.error.URLError("Name or service not known")


def archive(names: tuple[str, ...] = web_runtime.FILES) -> bytes:
    """An archive as npm's, each file of which holds its own name."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for name in (*(f"{web_runtime.MEMBERS}/{name}" for name in names), "package/../../escaped"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            file.addfile(member, io.BytesIO(name.encode()))
    return packed.getvalue()


ARCHIVE = archive()


class Answer(io.BytesIO):
    headers: dict[str, str] = {}


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A registry with the pinned archive; the addresses that are asked for."""
    asked = []

    def answer(address: str, **_options: object) -> Answer:
        asked.append(address)
        return Answer(ARCHIVE)

    monkeypatch.setattr("adaattn_core.demo.web_runtime.urllib.request.urlopen", answer)
    digest = base64.b64encode(hashlib.sha512(ARCHIVE).digest()).decode()
    monkeypatch.setattr(web_runtime, "SHA512", digest)
    return asked


# ---------------------------------------------------------------- the runtime


def test_the_runtime_is_downloaded_once_and_only_the_named_files_of_it(place: Path, connected: list[str]) -> None:
    folder = web_runtime.get_runtime()
    assert web_runtime.get_runtime() == folder == web_runtime.find_runtime()
    assert connected == [web_runtime.ADDRESS]
    assert sorted(path.name for path in folder.iterdir()) == sorted(web_runtime.FILES)
    assert (folder / web_runtime.FILES[0]).read_text() == f"package/dist/{web_runtime.FILES[0]}"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not list(place.rglob("escaped"))


def test_other_bytes_than_the_pinned_ones_are_refused_and_not_kept(
    place: Path, connected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_runtime, "SHA512", "other")
    with pytest.raises(DownloadError, match="gave other bytes than those of version"):
        web_runtime.get_runtime()
    assert list((place / "cache" / "adaattn").iterdir()) == []


def test_a_runtime_with_a_file_missing_is_downloaded_again(connected: list[str]) -> None:
    folder = web_runtime.get_runtime()
    (folder / web_runtime.FILES[2]).unlink()
    assert web_runtime.is_present(web_runtime.get_runtime())
    assert len(connected) == 2


def test_the_cache_folder_follows_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert web_runtime.cache_folder() == Path("/caches/adaattn")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert web_runtime.cache_folder() == Path.home() / "Library" / "Caches" / "adaattn"


# ---------------------------------------------------------------- the files


@needs_onnx
def test_the_page_is_written_with_all_that_it_loads(connected: list[str], capsys: Said) -> None:
    assert main(["demo", "m.safetensors", "--get-runtime", "--write", "site"]) == 0
    assert "site  " in capsys.readouterr().out
    description = json.loads(Path("site/site.json").read_text())
    assert description["local"] is False
    assert [level["cell"] for level in description["levels"]] == [1, 1, 1]
    for example in (*description["styles"], *description["photos"]):
        assert Path(f"site/pictures/{example['name']}.jpg").is_file()
    for stage in ("encoder", "style", "content", "decoder"):
        assert b"CC0-1.0" in Path(f"site/models/{stage}.onnx").read_bytes()
    assert "VERSION_OF_THE_SITE" not in Path("site/service-worker.js").read_text()


@needs_onnx
def test_an_earlier_page_is_replaced_and_has_another_version(connected: list[str]) -> None:
    assert main(["demo", "m.safetensors", "--get-runtime", "--write", "site"]) == 0
    before = Path("site/service-worker.js").read_text()
    assert main(["demo", "m.safetensors", "--write", "site"]) == 0
    assert Path("site/service-worker.js").read_text() == before
    save_model(small_model(seed=1), Path("m.safetensors"))
    assert main(["demo", "m.safetensors", "--write", "site"]) == 0
    assert Path("site/service-worker.js").read_text() != before


@needs_onnx
def test_options_of_the_server_have_no_effect_on_written_files(
    connected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    command = ["demo", "m.safetensors", "--get-runtime", "--write", "site", "--port", "8000", "--no-browser"]
    assert main(command) == 0
    assert caplog.messages == ["--port, --no-browser have no effect with --write, which shows no page."]


# ---------------------------------------------------------------- the server


@pytest.fixture
def opened(connected: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """`adaattn demo` ends as soon as the browser was opened; the addresses that it was asked to open."""
    addresses: list[str] = []

    def no_browser(address: str) -> bool:
        addresses.append(address)
        return False

    monkeypatch.setattr("webbrowser.open", no_browser)
    monkeypatch.setattr(SiteServer, "serve_forever", lambda self: None)
    yield addresses


@needs_onnx
def test_the_page_is_opened_where_it_is_served(opened: list[str], capsys: Said) -> None:
    assert main(["demo", "m.safetensors", "--get-runtime"]) == 0
    (address,) = opened
    assert address.startswith("http://127.0.0.1:")
    assert (
        capsys.readouterr().out == f"{address}  Ctrl-C ends it\nno browser could be opened; open the address in one\n"
    )


@needs_onnx
def test_no_browser_is_opened_where_none_is_wanted(opened: list[str]) -> None:
    assert main(["demo", "m.safetensors", "--get-runtime", "--no-browser"]) == 0
    assert opened == []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[SiteServer]:
    (tmp_path / "secret.txt").write_text("not of the page")
    with SiteServer({"index.html": b"<p>page</p>", "a/b.mjs": tmp_path / "work" / "m.safetensors"}) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_server_sends_what_threads_need(served: SiteServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with urllib.request.urlopen(served.address) as answer:
        assert answer.read() == b"<p>page</p>"
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    with urllib.request.urlopen(f"{served.address}a/b.mjs?x=1") as answer:
        assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("path", ["../secret.txt", "%2e%2e/secret.txt", "a", "a/../index.html", "//secret.txt"])
def test_nothing_else_can_be_asked_for(served: SiteServer, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(urllib.error.HTTPError, match="404") as failed:
        urllib.request.urlopen(served.address + path)
    failed.value.close()


# ---------------------------------------------------------------- trouble


def complaint(command: str, capsys: Said) -> str:
    """The one line of a command that fails."""
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_without_the_runtime_the_command_that_gets_it_is_named(place: Path, capsys: Said) -> None:
    error = complaint("demo", capsys)
    assert "Run adaattn demo --get-runtime once, with a connection" in error
    assert not (place / "cache").exists()


def test_without_a_connection_nothing_is_kept(place: Path, capsys: Said) -> None:
    error = complaint("demo --get-runtime --write site", capsys)
    assert "could not be downloaded" in error and "Name or service not known" in error
    assert list((place / "cache" / "adaattn").iterdir()) == []
    assert not Path("site").exists()


def test_a_folder_with_other_files_is_left_alone(capsys: Said) -> None:
    Path("site").mkdir()
    Path("site", "mine.txt").write_text("kept")
    assert "site holds other files" in complaint("demo --write site", capsys)
    assert [path.name for path in Path("site").iterdir()] == ["mine.txt"]


@needs_onnx
def test_a_port_in_use_is_named(served: SiteServer, connected: list[str], capsys: Said) -> None:
    error = complaint(f"demo m.safetensors --get-runtime --no-browser --port {served.server_port}", capsys)
    assert f"port {served.server_port} cannot be used: Address already in use" in error


@needs_onnx
def test_a_model_with_one_level_is_refused(connected: list[str], capsys: Said) -> None:
    save_model(small_model(config=SMALL_VIDEO), Path("video.safetensors"))
    error = complaint("demo video.safetensors --get-runtime --write site", capsys)
    assert "the stages need a model with three levels" in error
    assert not Path("site").exists()


@pytest.mark.parametrize("option", ["--port 65536", "--port -1", "--port x"])
def test_a_port_out_of_range_is_refused(option: str, capsys: Said) -> None:
    complaint(f"demo {option}", capsys)


def test_without_the_package_onnx_its_extra_is_named(capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert 'pip install "adaattn[onnx]"' in complaint("demo", capsys)
