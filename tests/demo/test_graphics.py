"""With a graphics card and without one, the page paints the same picture. Each test starts a browser of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.comfyui.conditions import require_browser

require_browser()

from adaattn_core.inference.stylize import stylize  # noqa: E402 (skipped without a browser)
from tests.demo.desk import FAILING_RUNTIME, ISOLATING, ROUNDED, STEP, Desk, chromium, difference  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = pytest.mark.slow

SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan,WebGPU")
"""A graphics card in software, which Chromium brings along: slow, and as exact as one."""


def test_without_webgpu_the_processor_paints_and_the_page_says_so(address: str) -> None:
    with chromium("--disable-blink-features=WebGPU", "--disable-features=WebGPU") as browser:
        desk = Desk(browser.new_page()).open(address)
        desk.start_anew().paint()
        assert desk.text("engine").startswith("Paints on the processor with ")
        assert desk.text("engine").endswith((": this browser has no WebGPU.", ", but no graphics card for it."))


def test_webgpu_paints_the_same_picture(address: str, model: Any) -> None:
    with chromium(*SOFTWARE_GPU) as browser:
        desk = Desk(browser.new_page()).open(f"{address}?backend=webgpu")
        desk.page.wait_for_function("() => document.getElementById('engine').textContent")
        if "no graphics card" in desk.text("engine") or "no WebGPU" in desk.text("engine"):
            pytest.skip(f"needs a Chromium with a software WebGPU: {desk.text('engine')}")
        desk.start_anew().paint()
        assert desk.text("engine") == "Paints on the graphics card (WebGPU)."
        wanted = stylize(model, desk.read("content"), desk.read("style"))
        assert difference(desk.picture("after"), wanted)[0] * STEP < ROUNDED


def test_where_the_graphics_card_fails_the_processor_takes_over(address: str) -> None:
    with chromium(*SOFTWARE_GPU) as browser:
        context = browser.new_context()
        body = FAILING_RUNTIME % "new Error('device lost')"

        def runtime(route: Route) -> None:
            route.fulfill(body=body, content_type="text/javascript", headers=ISOLATING)

        context.route("**/runtime/ort.webgpu.min.mjs", runtime)
        desk = Desk(context.new_page()).open(f"{address}?backend=webgpu")
        desk.start_anew().paint()
        assert desk.text("engine").startswith("Paints on the processor with ")
