"""ComfyUI's page in a real browser, and what the tests do on it. Needs playwright and a Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Page, sync_playwright

from comfyui.conditions import require_browser
from comfyui.host import PACK_NAME, Host

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
READY = "() => window.app && window.app.graph && window.app.extensionManager && window.app.canvas"
PATIENCE_MS = 600_000


class Desk:
    """A page with ComfyUI on it. Console errors are kept, with the file each came from."""

    def __init__(self, page: Page, host: Host) -> None:
        self.page = page
        self.host = host
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(f"{error} {error.stack}"))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    @property
    def own_errors(self) -> list[str]:
        """Errors from this pack's files or about its nodes."""
        return [error for error in self.errors if PACK_NAME in error.lower()]

    def open(self) -> None:
        """Load the page as a person who has been here before: without the first-time dialog."""
        self.page.goto(self.host.url)
        self.page.wait_for_function(READY)
        self.set("Comfy.TutorialCompleted", True)
        self.reload()

    def reload(self) -> None:
        self.page.goto(self.host.url)
        self.page.wait_for_function(READY)
        self.page.wait_for_timeout(1000)

    def set(self, setting: str, value: Any) -> None:
        self.page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [setting, value])

    def load(self, workflow: Any) -> None:
        """Show a workflow, all of it in view."""
        self.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
        self.fit()

    def fit(self) -> None:
        self.page.wait_for_timeout(500)
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(1000)

    def prompt(self) -> Any:
        """What the page would send to the host."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def shot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=str(path))


@contextmanager
def desk(host: Host, width: int = 1600, height: int = 900) -> Iterator[Desk]:
    """A fresh browser with ComfyUI open."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require_browser(), args=list(QUIET))
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            opened = Desk(page, host)
            opened.open()
            yield opened
        finally:
            browser.close()
