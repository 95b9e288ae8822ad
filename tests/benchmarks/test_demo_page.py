"""benchmarks/demo_page.py counts the bytes of a first visit and takes the fastest picture but the first."""

from __future__ import annotations

from pathlib import Path

from adaattn_core.demo.site import Site
from benchmarks import demo_page


def test_the_files_of_the_graphics_card_are_not_counted_beside_those_of_the_processor(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes(30_000))
    site: Site = {
        "index.html": bytes(10_000), "models/encoder.onnx": bytes(2_000_000), "pictures/a.jpg": tmp_path / "a.jpg",
        "runtime/ort.wasm.min.mjs": bytes(50_000), "runtime/ort.webgpu.min.mjs": bytes(70_000),
    }  # fmt: skip
    assert demo_page.sizes(site) == "MB  graphs 2.00  pictures 0.03  scripts and text 0.01  runtime 0.05"


def test_the_first_picture_is_not_the_fastest() -> None:
    def seconds(each: float) -> dict[str, float]:
        return {**dict.fromkeys(demo_page.STAGES, each), "processor": 7 * each}

    engine = {"backend": "wasm", "threads": 2, "ready": 1.5}
    measured = demo_page.Measured(engine, [seconds(0.5), seconds(2.0), seconds(1.0)])
    assert demo_page.summary(measured).splitlines() == [
        "wasm, 2 threads  ready after 1.5 s  first picture 2.0 s",
        "seconds  4.00: style 1.00  content 1.00  attention 1.00  decoder 1.00  of the processor 7.00",
    ]
