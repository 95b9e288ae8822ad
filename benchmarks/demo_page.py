"""Seconds and bytes of the page that paints, in a real Chromium. Needs playwright, and `adaattn demo --get-runtime`.

    python -m benchmarks.demo_page --size 512 --style-size 256

Content and style are squares of numbers in no order: time does not depend on what a picture shows. The first picture of
a page takes longer, since the browser is still compiling the runtime; the line says the fastest of the others. Seconds
of the processor are those of all threads together, which other programs hardly change.
"""

from __future__ import annotations

import argparse
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from adaattn_core.demo.server import SiteServer
from adaattn_core.demo.site import Site, build_site
from adaattn_core.demo.web_runtime import find_runtime

STAGES = ("style", "content", "attention", "decoder")
START = """async backend => {
    const { Painter } = await import("./painter.js");
    const started = performance.now();
    window.marks = [];
    window.painter = new Painter(backend, {
        stage: name => marks.push([name, performance.now()]), ready: engine => { window.engine = engine; },
    });
    await painter.start();
    return { ...engine, ready: (performance.now() - started) / 1000 };
}"""
ROUND = """async ({ round, size, styleSize }) => {
    const square = (key, side) => ({
        key, title: "", width: side, height: side,
        pixels: Uint8ClampedArray.from({ length: 4 * side * side }, (_, index) => (index * 7919) % 251),
    });
    const [content, style] = [square(`c${round}`, size), square(`s${round}`, styleSize)];
    marks.length = 0;
    await painter.paint({ content, style, strength: 1, keepColor: false, mask: null });
    marks.push(["end", performance.now()]);
    const ends = marks.slice(1).map(([, time]) => time);
    return Object.fromEntries(ends.map((end, index) => [marks[index][0], (end - marks[index][1]) / 1000]));
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the content in pixels (default: %(default)s)")
    parser.add_argument("--style-size", type=int, default=256, help="side of the style (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="after the first picture (default: %(default)s)")
    parser.add_argument("--backend", choices=("auto", "wasm", "webgpu"), default="wasm", help="(default: %(default)s)")
    args = parser.parse_args()
    site = build_site("compact", find_runtime(), is_local=True)
    print(sizes(site))
    with serving(site) as address:
        print(summary(measure(address, args)))


def sizes(site: Site) -> str:
    """Bytes of the first visit."""
    totals = {"graphs": 0, "pictures": 0, "scripts and text": 0, "runtime": 0}
    kinds = {"models": "graphs", "pictures": "pictures", "runtime": "runtime"}
    for path, entry in site.items():
        if "asyncify" in path or "webgpu" in path:
            continue  # of the graphics card, in place of those of the processor
        size = len(entry) if isinstance(entry, bytes) else entry.stat().st_size
        totals[kinds.get(path.partition("/")[0], "scripts and text")] += size
    return "MB  " + "  ".join(f"{name} {size / 1e6:.2f}" for name, size in totals.items())


@contextmanager
def serving(site: Site) -> Iterator[str]:
    """The address of a server at work."""
    with SiteServer(site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.address
        finally:
            server.shutdown()
            thread.join()


class Measured(NamedTuple):
    """Of a page. engine: backend, threads, and seconds until it was ready. rounds: seconds of each stage, and of the
    processor under "processor", for each picture."""

    engine: dict[str, Any]
    rounds: list[dict[str, float]]


def measure(address: str, args: argparse.Namespace) -> Measured:
    from playwright.sync_api import sync_playwright

    browser_path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        session, page = browser.new_browser_cdp_session(), browser.new_page()

        def processor_seconds() -> float:
            processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
            return float(sum(process["cpuTime"] for process in processes))

        page.goto(f"{address}words.js")  # a file of the page beside the scripts, which computes nothing
        engine, rounds = page.evaluate(START, args.backend), []
        for index in range(args.repeats + 1):
            before = processor_seconds()
            values = {"round": index, "size": args.size, "styleSize": args.style_size}
            rounds.append({**page.evaluate(ROUND, values), "processor": processor_seconds() - before})
        browser.close()
    return Measured(engine, rounds)


def summary(measured: Measured) -> str:
    """Lines with the engine, and the seconds of the fastest picture but the first."""
    first, *others = measured.rounds

    def total(seconds: dict[str, float]) -> float:
        return sum(seconds[name] for name in STAGES)

    best = min(others or [first], key=total)
    engine = measured.engine
    stages = "  ".join(f"{name} {best[name]:.2f}" for name in STAGES)
    return (
        f"{engine['backend']}, {engine['threads']} threads  ready after {engine['ready']:.1f} s  first picture "
        f"{total(first):.1f} s\nseconds  {total(best):.2f}: {stages}  of the processor "
        f"{min(seconds['processor'] for seconds in others or [first]):.2f}"
    )


if __name__ == "__main__":
    main()
