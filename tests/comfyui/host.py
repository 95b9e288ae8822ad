"""A real ComfyUI server around this pack, in a scratch folder, and the few requests the tests make of it.

Only the standard library, numpy and Pillow: the tests run in the host's own environment.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).parent / "probe"
PACK_NAME = "adaattn"

Prompt = dict[str, dict[str, Any]]
"""A graph in the API's form: node id -> {"class_type": ..., "inputs": {name: value or [node id, output]}}."""

Picture = NDArray[np.uint8]


class RefusedError(Exception):
    """The host answered a prompt with an error before running anything."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status = status
        self.body = body
        super().__init__(f"{status}: {json.dumps(body)[:2000]}")

    def errors_of(self, node: str) -> str:
        """What the host says of one node's inputs, one line each."""
        entries = self.body.get("node_errors", {}).get(node, {}).get("errors", [])
        return "\n".join(f"{entry['message']}: {entry['details']}" for entry in entries)


@dataclass(frozen=True)
class Run:
    """A prompt that came to its end: what each node showed, and what the host noted on the way."""

    prompt: Prompt
    outputs: Mapping[str, Mapping[str, Any]]
    messages: Sequence[tuple[str, Mapping[str, Any]]]

    def _message(self, kind: str) -> Mapping[str, Any]:
        return next((data for name, data in self.messages if name == kind), {})

    @property
    def succeeded(self) -> bool:
        return bool(self._message("execution_success"))

    @property
    def executed(self) -> set[str]:
        """Nodes that were not answered from the cache."""
        return set(self.prompt) - set(self._message("execution_cached").get("nodes", []))

    @property
    def error(self) -> str:
        """What stands in the red box of the node that failed."""
        return str(self._message("execution_error").get("exception_message", ""))

    @property
    def failed_node(self) -> str:
        return str(self._message("execution_error").get("node_id", ""))

    @property
    def interrupted(self) -> bool:
        return bool(self._message("execution_interrupted"))


def shipped_files() -> list[str]:
    """Files of the pack as the registry would ship it: what git does not ignore, without what .comfyignore names."""

    def listed(*options: str) -> set[str]:
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", *options]
        names = subprocess.run(command, capture_output=True, check=True).stdout.decode()
        return set(filter(None, names.split("\0")))

    dropped = listed("--ignored", f"--exclude-from={ROOT / '.comfyignore'}")
    return sorted(name for name in listed("--exclude-standard") - dropped if (ROOT / name).is_file())


def install_pack(folder: Path) -> Path:
    """A copy of the pack as the registry would install it, under a custom_nodes folder."""
    pack = folder / PACK_NAME
    for name in shipped_files():
        (pack / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, pack / name)
    return pack


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Host:
    """One server process. Use it as a context manager: it is stopped at the end, whatever happens."""

    def __init__(self, comfyui: Path, base: Path, python: str, arguments: Sequence[str] = ("--cpu",)) -> None:
        self.base = base
        self.log_file = base / "server.log"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
            (base / name).mkdir(parents=True, exist_ok=True)
        self.pack = install_pack(base / "custom_nodes")
        shutil.copytree(PROBE, base / "custom_nodes" / "probe", ignore=shutil.ignore_patterns("__pycache__"))
        self._command = [
            python,
            "main.py",
            *("--listen", "127.0.0.1", "--port", str(self.port)),
            *("--base-directory", str(base), "--database-url", "sqlite:///:memory:", "--disable-api-nodes"),
            *arguments,
        ]
        self._comfyui = comfyui

    def __enter__(self) -> Host:
        # Without limits glibc keeps freed memory in per-thread arenas, and memory would seem to leak.
        environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "65536"}
        environment.pop("PYTEST_CURRENT_TEST", None)
        with self.log_file.open("w") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._comfyui, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        try:
            self._await_answer()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _await_answer(self, seconds: float = 600) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI did not start:\n{self.log()[-4000:]}")
            try:
                self.get("/system_stats")
                self.start_log = self.log()
                return
            except OSError:
                time.sleep(0.3)
        raise RuntimeError(f"ComfyUI did not answer within {seconds:g} s:\n{self.log()[-4000:]}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def version(self) -> tuple[int, ...]:
        """Of ComfyUI."""
        return tuple(map(int, self.get("/system_stats")["system"]["comfyui_version"].split(".")))

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    # ------------------------------------------------------------------ requests

    def fetch(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return bytes(answer.read())

    def get(self, path: str) -> Any:
        return json.loads(self.fetch(path))

    def queue(self, prompt: Prompt) -> str:
        """Hand a graph in; its id.

        Raises:
            RefusedError: the host found an error in it.
        """
        try:
            return str(json.loads(self.fetch("/prompt", {"prompt": prompt}))["prompt_id"])
        except urllib.error.HTTPError as error:
            with error:
                raise RefusedError(error.code, json.loads(error.read())) from None

    def wait(self, prompt_id: str, prompt: Prompt, seconds: float = 600) -> Run:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                return Run(prompt, entry["outputs"], entry["status"]["messages"])
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended while it ran a prompt:\n{self.log()[-4000:]}")
            time.sleep(0.05)
        raise TimeoutError(f"the prompt did not end within {seconds:g} s:\n{self.log()[-4000:]}")

    def run(self, prompt: Prompt) -> Run:
        """Run a graph to its end, whatever end."""
        return self.wait(self.queue(prompt), prompt)

    def paint(self, prompt: Prompt) -> Run:
        """Run a graph that must succeed."""
        run = self.run(prompt)
        assert run.succeeded, f"{run.failed_node}: {run.error}\n{self.log()[-4000:]}"
        return run

    def interrupt(self) -> None:
        self.fetch("/interrupt", {})

    def free(self, seconds: float = 120) -> None:
        """Unload every model and drop the cache, and wait until that is done.

        Asked more than once: the host misses a call that comes while it collects garbage after a prompt.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.fetch("/free", {"unload_models": True, "free_memory": True})
            for _ in range(10):
                time.sleep(0.2)
                if not self.probe()["loaded"]:
                    return
        raise TimeoutError(f"the host still holds {self.probe()['loaded']} after {seconds:g} s")

    def probe(self) -> dict[str, Any]:
        """What the test's own pack sees inside the server."""
        state: dict[str, Any] = self.get("/adaattn_probe")
        return state

    def files(self, run: Run, node: str) -> list[dict[str, str]]:
        """The files that a node showed."""
        return list(run.outputs.get(node, {}).get("images", []))

    def pictures(self, run: Run, node: str) -> list[Picture]:
        """The pictures that a node showed -> each (H, W, 3), or (H, W, 4) with opacity."""
        return [self._picture(image) for image in self.files(run, node)]

    def picture(self, run: Run, node: str) -> Picture:
        (picture,) = self.pictures(run, node)
        return picture

    def _picture(self, image: Mapping[str, str]) -> Picture:
        data = self.fetch("/view?" + urllib.parse.urlencode(image))
        with Image.open(io.BytesIO(data)) as opened:
            return np.asarray(opened.convert("RGBA" if opened.has_transparency_data else "RGB"))


# ---------------------------------------------------------------------- graphs


def link(node: str, output: int = 0) -> list[Any]:
    return [node, output]


def with_defaults(info: Mapping[str, Any], graph: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Prompt:
    """A prompt out of `id -> (class, inputs)`; values that a person would leave as they are come from the schema."""
    prompt: Prompt = {}
    for node, (kind, given) in graph.items():
        inputs = {name: default for name, default in _defaults(info[kind]) if name not in given}
        prompt[node] = {"class_type": kind, "inputs": {**inputs, **given}}
    return prompt


def _defaults(schema: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, entry in {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}.items():
        kind, options = entry[0], entry[1] if len(entry) > 1 else {}
        choices = kind if isinstance(kind, list) else options.get("options")
        if "default" in options:
            yield name, options["default"]
        elif choices:
            yield name, choices[0]
