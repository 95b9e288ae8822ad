"""The page on desktops and phones, with keyboard and screen reader, without threads and without a connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.comfyui.conditions import require_browser

require_browser()

from adaattn_core.demo import server as demo_server  # noqa: E402 (skipped without a browser)
from adaattn_core.demo.server import SiteServer  # noqa: E402
from adaattn_core.demo.site import Site, build_site, write_site  # noqa: E402
from adaattn_core.demo.web_runtime import find_runtime  # noqa: E402
from tests.comfyui.viewer import contrast  # noqa: E402
from tests.demo.conftest import serving  # noqa: E402
from tests.demo.desk import Desk  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow

PHONE = {"width": 360, "height": 740}
FIRST_LOAD = 8_000_000
"""Bytes that the first visit may load beside the runtime."""


# ---------------------------------------------------------------- what is loaded, and from where


def test_the_first_visit_loads_at_most_eight_megabytes_beside_the_runtime(
    browser: Browser, address: str, site: Site
) -> None:
    page = browser.new_page()
    desk = Desk(page).open(address)
    page.wait_for_function("() => document.getElementById('engine').textContent")
    paths = {urlsplit(request.url).path.removeprefix("/") or "index.html" for request in desk.requests}
    loaded = {path for path in paths if not path.startswith("runtime/")}
    assert {"models/encoder.onnx", "models/decoder.onnx", "worker.js", "pictures/kazusa.jpg"} <= loaded
    assert sum(size_of(site[path]) for path in loaded) < FIRST_LOAD
    page.close()


def size_of(entry: bytes | Path) -> int:
    return len(entry) if isinstance(entry, bytes) else entry.stat().st_size


def test_nothing_leaves_the_browser(browser: Browser, address: str) -> None:
    """Every request is a GET of a file of the page; the page says so."""
    page = browser.new_page()
    desk = Desk(page).open(address).start_anew()
    desk.paint()
    page.click("#attention summary")
    page.wait_for_function("() => document.querySelector('.adaattn-viewer')?.viewer.state === 'shown'")
    sent = [request for request in desk.requests if not request.url.startswith(("blob:", "data:"))]
    assert all(request.url.startswith(address) for request in sent)
    assert {(request.method, request.post_data) for request in sent} == {("GET", None)}
    assert "No picture leaves this device." in desk.text("privacy")
    page.close()


# ---------------------------------------------------------------- layout


@pytest.fixture
def phone(browser: Browser, address: str) -> Iterator[Desk]:
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    yield Desk(context.new_page()).open(address)
    context.close()


def test_a_phone_shows_the_picture_first_and_needs_no_scrolling_sideways(phone: Desk) -> None:
    page = phone.page
    assert page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]
    boxes = [page.locator(id).bounding_box() for id in ("#easel", "#paint", "#photos", "#styles")]
    tops = [box["y"] for box in boxes if box]
    assert tops == sorted(tops) and len(tops) == len(boxes)
    assert tops[1] < PHONE["height"]  # the button is seen without scrolling


def test_all_that_is_pressed_is_large_enough_for_a_finger(phone: Desk) -> None:
    """Source: WCAG 2.2, 2.5.8: 24 pixels; most are 40."""
    phone.page.check("#masking")
    small = phone.page.evaluate(
        """() => [...document.querySelectorAll("button, select, input:not([type=file]), summary")]
            .filter(one => one.checkVisibility())
            .map(one => [one.id || one.dataset.name, (one.closest("label.check") ?? one).getBoundingClientRect()])
            .filter(([, box]) => box.height < 24 || box.width < 24).map(([name]) => name)"""
    )
    assert small == []


def test_a_touch_moves_the_line_between_before_and_after(phone: Desk) -> None:
    phone.start_anew().paint()
    box = phone.page.locator("#easel").bounding_box()
    assert box is not None
    phone.page.touchscreen.tap(box["x"] + box["width"] * 0.2, box["y"] + box["height"] / 2)
    assert int(phone.page.input_value("#compare")) == pytest.approx(20, abs=4)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_easy_to_read_on_their_ground(browser: Browser, address: str, scheme: Any) -> None:
    """Source: WCAG 2, 1.4.3: 4.5 to 1."""
    context = browser.new_context(color_scheme=scheme)
    desk = Desk(context.new_page()).open(address)
    names = ["h1", "#privacy", "legend", ".hint", "#paint", "#choose-photo", "#strength-value", "footer"]
    colours = desk.page.evaluate(
        """names => names.map(name => {
            const one = document.querySelector(name);
            const ground = from => {
                const colour = from ? getComputedStyle(from).backgroundColor : "rgb(255, 255, 255)";
                return colour === "rgba(0, 0, 0, 0)" ? ground(from.parentElement) : colour;
            };
            return [name, getComputedStyle(one).color, ground(one)];
        })""",
        names,
    )
    assert {name: (text, ground) for name, text, ground in colours if contrast(text, ground) < 4.5} == {}
    context.close()


# ---------------------------------------------------------------- keyboard and screen reader


def test_everything_has_a_name_for_a_screen_reader(desk: Desk) -> None:
    desk.page.check("#masking")
    nameless = desk.page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, canvas, progress, [role=group]")]
            .filter(one => one.type !== "file")
            .filter(one => {
                const labels = [...(one.labels ?? [])].map(label => label.textContent.trim());
                const alternatives = [...one.querySelectorAll("img")].map(image => image.alt);
                const by = document.getElementById(one.getAttribute("aria-labelledby"));
                const own = [one.getAttribute("aria-label"), by && one.id, one.textContent.trim()];
                return ![...own, ...labels, ...alternatives].some(Boolean);
            }).map(one => one.id || one.outerHTML)"""
    )
    assert nameless == []
    assert desk.page.get_attribute("#status", "role") == "status"
    assert desk.page.get_attribute("#alert", "role") == "alert"


def test_a_keyboard_reaches_everything_that_is_seen(desk: Desk) -> None:
    desk.paint()
    desk.page.check("#masking")
    desk.page.evaluate("() => document.activeElement.blur()")
    reached = []
    for _ in range(60):
        desk.page.keyboard.press("Tab")
        name = desk.page.evaluate("() => document.activeElement.id || document.activeElement.dataset.name || ''")
        if name in reached:
            break
        reached.append(name)
    wanted = {"mask", "paint", "save", "choose-photo", "coffee", "great_wave", "choose-style", "strength", "stroke"}
    assert wanted | {"size", "keep-color", "masking", "brush-size", "erase", "invert", "clear"} <= set(reached)


def test_a_keyboard_paints_compares_and_brushes(desk: Desk) -> None:
    page = desk.page

    def press(id: str, *keys: str) -> None:
        page.focus(f"#{id}")
        for key in keys:
            page.keyboard.press(key)

    desk.after(lambda: press("paint", "Enter"))
    press("compare", "ArrowRight", "ArrowRight")
    assert page.get_attribute("#compare", "aria-valuetext") == "52 % photo, 48 % painted"
    press("masking", " ")
    desk.after(lambda: press("mask", "ArrowLeft", "Shift+ArrowUp", " "))
    mask = page.evaluate("() => [...page.run.mask]")
    height, width = desk.picture("before").shape[-2:]
    rows, columns = zip(*(divmod(index, width) for index, value in enumerate(mask) if value == 255), strict=True)
    assert sum(columns) / len(columns) / width == pytest.approx(0.48, abs=0.02)
    assert sum(rows) / len(rows) / height == pytest.approx(0.4, abs=0.02)


# ---------------------------------------------------------------- hosts


def test_without_the_headers_for_threads_one_thread_paints(
    browser: Browser, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_server, "HEADERS", {})
    with serving(SiteServer(site)) as address:
        page = browser.new_page()
        desk = Desk(page).open(address)
        desk.start_anew().paint()
        assert not page.evaluate("() => crossOriginIsolated")
        assert desk.text("engine").startswith("Paints on the processor with one thread")
        page.close()


@contextmanager
def plain_host(folder: Path) -> Iterator[str]:
    """A host of files that sends no headers of its own."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as host:
        thread = Thread(target=host.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{host.server_port}/"
        finally:
            host.shutdown()
            thread.join()


def test_on_a_plain_host_it_has_threads_and_works_without_a_connection(browser: Browser, tmp_path: Path) -> None:
    write_site(build_site("compact", find_runtime(), is_local=False), tmp_path)
    context = browser.new_context()
    desk = Desk(context.new_page())
    with plain_host(tmp_path) as address:
        desk.page.goto(address)
        desk.page.wait_for_function("() => crossOriginIsolated && globalThis.page?.photo && page.style")
        desk.page.wait_for_function("() => document.getElementById('engine').textContent")
        assert "one thread" not in desk.text("engine")
        desk.page.wait_for_load_state("networkidle")
    desk.page.close()
    later = Desk(context.new_page()).open(address)
    later.start_anew().paint()
    later.page.click("#styles [data-name=kazusa]")
    later.page.wait_for_function("() => page.run.style.title.includes('Kazusa') && page.result && page.isAtRest")
    assert later.errors == []
    context.close()
