"""The page that paints in a real browser, and what the tests do on it. Needs playwright and a Chromium."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adaattn_core.demo.site import PICTURE_FOLDER
from tests.comfyui.conditions import require_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

PATIENCE_MS = 180_000
"""A machine with other work may take long for one picture."""

STEP = 1 / 255
ROUNDED = 1.01 * STEP
"""Of a pixel: 8 bits, and weights in float16."""

FAILING_RUNTIME = """
export const env = { wasm: {} };
export class Tensor { constructor(type, data, dims) { Object.assign(this, { data, dims }); } }
export const InferenceSession = { create: async () => ({ inputNames: [], run: async () => { throw %s; } }) };
"""
"""A runtime that opens every graph and runs none; the error takes the place of %s."""

ISOLATING = {"Cross-Origin-Embedder-Policy": "require-corp", "Cross-Origin-Resource-Policy": "same-origin"}
"""Headers without which an isolated page takes no script."""

PIXELS = """id => {
    const canvas = document.getElementById(id);
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let text = "";
    for (let start = 0; start < data.length; start += 32768) {
        text += String.fromCharCode(...data.subarray(start, start + 32768));
    }
    return [canvas.width, canvas.height, btoa(text)];
}"""


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """A browser of its own; arguments as on its command line."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-background-networking", "--no-first-run", *arguments]
        quiet.append("--use-fake-device-for-media-stream")  # a camera
        browser = playwright.chromium.launch(executable_path=require_browser(), args=quiet)
        try:
            yield browser
        finally:
            browser.close()


def difference(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Largest and mean difference, in steps of 1/255."""
    assert one.shape == other.shape
    apart = (one - other).abs() * 255
    return float(apart.max()), float(apart.mean())


def as_png(image: Image.Image, name: str) -> dict[str, Any]:
    """A picture as a file for `Desk.drop`."""
    file = BytesIO()
    image.save(file, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": file.getvalue()}


class Desk:
    """A tab with the page. Kept are errors that it did not catch, what it logged, and its requests."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requests: list[Request] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: self.errors.append(f"{error} {error.stack}"))
        page.on("console", self._note)
        page.on("request", lambda request: self.requests.append(request))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:  # a broken picture, on purpose
            self.errors.append(message.text)

    def open(self, address: str) -> Desk:
        """The page, with its first photo and style."""
        self.page.goto(address)
        self.page.wait_for_function("() => globalThis.page?.photo && page.style")
        return self

    def start_anew(self) -> Desk:
        """All dials where they were at first, no mask, and pictures that are painted quickly."""
        self.page.evaluate(
            """() => {
                if (!page.isAtRest) page.cancel();
                page.hasBegun = false;
                const dials = document.getElementById("dials");
                dials.reset();
                for (const dial of dials.elements) {
                    if (dial.type === "file") continue;
                    for (const kind of ["input", "change"]) dial.dispatchEvent(new Event(kind));
                }
                page.easel.clear();
                page.easel.isMarked = false;
                document.getElementById("alert").hidden = true;
            }"""
        )
        self.use("photo", PICTURE_FOLDER / "coffee.jpg", short_side=64)
        self.use("style", PICTURE_FOLDER / "great_wave.jpg", short_side=96)
        return self

    def use(self, role: str, file: Path, short_side: int) -> None:
        """Chooses a reduced copy of a picture as the photo or the style."""
        name = f"{role}-{short_side}.png"
        image = Image.open(file)
        image.thumbnail((4096, short_side))
        self.drop(f"{role}-file", as_png(image, name))
        self.page.wait_for_function("([role, name]) => page[role].name === name", arg=[role, name])

    def text(self, id: str) -> str:
        return str(self.page.inner_text(f"#{id}"))

    def set(self, id: str, value: float) -> None:
        """Moves a dial, as a person does."""
        self.page.evaluate(
            """([id, value]) => {
                const dial = document.getElementById(id);
                dial.value = value;
                dial.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            [id, value],
        )

    def drop(self, input_id: str, file: Path | dict[str, Any]) -> None:
        """Chooses a file, or one that is given as name, mimeType and buffer."""
        self.page.set_input_files(f"#{input_id}", file)

    def after(self, action: Callable[[], object]) -> str:
        """Does something that paints, and waits until it has painted: what the page says of it.

        Raises:
            AssertionError: it ended with a line about a problem.
        """
        self.page.evaluate("() => { page.marked = page.result; }")
        action()
        self.page.wait_for_function(
            """() => (page.result && page.result !== page.marked && page.isAtRest)
                || !document.getElementById("alert").hidden"""
        )
        alert = self.page.locator("#alert")
        assert not alert.is_visible(), alert.inner_text()
        return self.text("status")

    def paint(self) -> str:
        return self.after(lambda: self.page.click("#paint"))

    def alert(self) -> str:
        """The line about a problem, once it is there."""
        self.page.wait_for_selector("#alert:visible")
        return self.text("alert")

    def picture(self, id: str) -> Tensor:
        """(1, 3, H, W) of a canvas, "before" or "after"."""
        width, height, data = self.page.evaluate(PIXELS, id)
        pixels = np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)
        return torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1)[None].float() / 255

    def read(self, what: str) -> Tensor:
        """(1, 3, H, W): the pixels of "content" or "style" as the page hands them to the worker."""
        width, height, data = self.page.evaluate(
            "what => { const { width, height, pixels } = page.run[what]; return [width, height, [...pixels]]; }", what
        )
        pixels = np.array(data, np.uint8).reshape(height, width, 4)
        return torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1)[None].float() / 255
