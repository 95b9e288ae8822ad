"""What runs again and what does not, how a run is stopped, and what it leaves behind."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaattn_core import save_model
from tests.comfyui.conditions import require_checkout
from tests.comfyui.graphs import changed, parts_graph, stylize_graph
from tests.comfyui.host import Host, Prompt, Run
from tests.helpers.small_models import small_model

require_checkout()

MIB = 2**20
LARGE = {"width": 1536, "height": 1152}
"""A picture that keeps one processor core busy for many seconds."""


# ---------------------------------------------------------------- the cache


@pytest.fixture(scope="module")
def painted(host: Host, info: dict[str, Any]) -> Run:
    return host.paint(parts_graph(info))


def test_the_same_again_runs_nothing(host: Host, painted: Run) -> None:
    assert host.paint(painted.prompt).executed == set()


CHANGES: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "strength": ("apply", {"strength": 0.5}, {"apply", "decode", "save"}),
    "temperature": ("apply", {"temperature": 2.0}, {"apply", "decode", "save"}),
    "keep colours": ("decode", {"keep_color": True}, {"decode", "save"}),
    "content": ("content", {"seed": 7}, {"content", "content_features", "apply", "decode", "save"}),
    "style": ("style", {"seed": 8}, {"style", "style_features", "apply", "decode", "save"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_runs_only_what_depends_on_it(host: Host, painted: Run, change: str) -> None:
    node, inputs, expected = CHANGES[change]
    host.paint(painted.prompt)  # the host remembers the last graph
    run = host.paint(changed(painted.prompt, node, **inputs))
    assert run.executed == expected
    assert not np.array_equal(host.picture(run, "save"), host.picture(host.paint(painted.prompt), "save"))


def test_one_node_and_separate_nodes_paint_the_same(host: Host, info: dict[str, Any], painted: Run) -> None:
    whole = host.paint(stylize_graph(info, style_size=0))
    one, other = host.picture(whole, "save").astype(int), host.picture(painted, "save").astype(int)
    assert np.abs(one - other).max() <= 1  # of 255: sums in another order


def test_a_replaced_model_file_is_read_again(host: Host, info: dict[str, Any], small_model_file: Path) -> None:
    graph = stylize_graph(info, model_name=small_model_file.name)
    first = host.paint(graph)
    assert host.paint(graph).executed == set()
    write_small_model(small_model_file, seed=5)
    second = host.paint(graph)
    assert second.executed == {"stylize", "save"}
    assert not np.array_equal(host.picture(first, "save"), host.picture(second, "save"))


def write_small_model(path: Path, seed: int) -> None:
    save_model(small_model(seed), path)


# ---------------------------------------------------------------- progress and interruption


def processor_seconds(pid: int) -> float | None:
    """What a process has computed so far, on all cores together, where the system tells."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return None
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def progress(host: Host) -> list[tuple[float, bool]]:
    """Steps of progress bars since the last `host.probe()`."""
    return [(share, picture) for share, picture in host.get("/adaattn_probe/progress")]


def long_jobs(info: dict[str, Any]) -> dict[str, Prompt]:
    return {
        "stylize": stylize_graph(info, content=LARGE, style_size=0),
        "parts": parts_graph(info, content=LARGE),
        "batch": stylize_graph(info, content={"width": 384, "height": 320, "batch": 16}),
    }


@pytest.mark.parametrize("job", ["stylize", "parts", "batch"])
def test_an_interrupt_stops_within_a_second(host: Host, info: dict[str, Any], job: str) -> None:
    """Of the clock, or, where other programs keep the machine busy, of the server's own computing."""
    host.free()
    host.probe()
    prompt = long_jobs(info)[job]
    prompt_id = host.queue(prompt)
    deadline = time.monotonic() + 300
    while not progress(host) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)  # into the middle of the work
    assert prompt_id not in host.get(f"/history/{prompt_id}"), "the job ended before it could be stopped"
    started, computed = time.monotonic(), processor_seconds(host.pid)
    host.interrupt()
    run = host.wait(prompt_id, prompt)
    elapsed = time.monotonic() - started
    if computed is not None:
        elapsed = min(elapsed, (processor_seconds(host.pid) or 0) - computed)
    assert run.interrupted, run.messages
    assert elapsed < 1


def test_the_host_paints_on_after_an_interrupt(host: Host, info: dict[str, Any]) -> None:
    assert host.paint(stylize_graph(info, strength=0.9)).succeeded


def test_long_work_shows_how_far_it_is(host: Host, info: dict[str, Any]) -> None:
    host.free()
    host.probe()
    graph = stylize_graph(info, content={"width": 512, "height": 384, "batch": 3}, strength=0.95)
    host.paint(changed(graph, "style", width=512, height=384))  # a small style is done in a few steps
    steps = progress(host)
    shares = [share for share, _ in steps]
    assert len(shares) >= 10
    assert shares == sorted(shares) and shares[-1] == 1
    assert any(picture for _, picture in steps), "no preview came"


# ---------------------------------------------------------------- memory


def test_runs_leave_no_memory_behind(host: Host, info: dict[str, Any]) -> None:
    """After the host has freed all it may, as much is left after five more pictures as before them."""

    def run(seed: int) -> None:
        host.paint(stylize_graph(info, content={"width": 512, "height": 384, "seed": seed}))
        host.paint(parts_graph(info, content={"width": 512, "height": 384, "seed": seed}))

    for seed in (100, 101):
        run(seed)
    host.free()
    before = host.probe()
    for seed in (102, 103, 104, 105, 106):
        run(seed)
    host.free()
    after = host.probe()
    assert after["loaded"] == before["loaded"] == []
    assert after["tensor_bytes"] - before["tensor_bytes"] < 1 * MIB
    if before["resident_bytes"] is not None:
        assert after["resident_bytes"] - before["resident_bytes"] < 50 * MIB


def test_the_host_holds_a_model_once(host: Host, info: dict[str, Any]) -> None:
    """However often its nodes run."""
    host.free()
    held = []
    for seed in (200, 201, 202):
        host.paint(stylize_graph(info, content={"seed": seed}))
        host.paint(parts_graph(info, content={"seed": seed}))
        held.append(sorted(host.probe()["loaded"]))
    assert {"Decoder", "MultiLevelFusion", "VGGEncoder"} <= set(held[0])
    assert held == [held[0]] * 3


def test_the_hosts_cache_can_weigh_what_nodes_give(host: Host, info: dict[str, Any]) -> None:
    """A new graph lets go of the old one's features; what the pack itself keeps for the next strength has its limit."""

    def bytes_after(seed: int) -> int:
        host.paint(parts_graph(info, content={"width": 512, "height": 384, "seed": seed}))
        state = host.probe()
        assert 0 < state["kept_bytes"] < state["tensor_bytes"]
        return int(state["tensor_bytes"] - state["kept_bytes"])

    host.free()
    first = bytes_after(300)
    assert abs(bytes_after(301) - first) < 1 * MIB
