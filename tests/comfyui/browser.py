"""ComfyUI's page in a real browser, and what the tests do on it. Needs playwright and a Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Dialog, Page, sync_playwright

from tests.comfyui.conditions import require_browser
from tests.comfyui.host import PACK_NAME, Host

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
NODES_2 = LABELS = (1, 35)
"""Versions of the page from which on Nodes 2.0 is more than a draft, and options have labels."""


class Desk:
    """A page with ComfyUI on it. Kept are console errors, with the file each came from, what alerts said, and what was
    loaded."""

    def __init__(self, page: Page, host: Host) -> None:
        self.page = page
        self.host = host
        self.errors: list[str] = []
        self.alerts: list[str] = []
        self.loaded: set[str] = set()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", self._note)
        page.on("dialog", self._answer)
        page.on("response", lambda answer: self.loaded.add(answer.url) if answer.ok else None)
        page.on("pageerror", lambda error: self.errors.append(f"{error} {error.stack}"))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _answer(self, dialog: Dialog) -> None:
        if dialog.type == "beforeunload":  # whether to leave a page with unsaved work on it
            dialog.accept()
        else:
            self.alerts.append(dialog.message)
            dialog.dismiss()

    @property
    def own_errors(self) -> list[str]:
        """Errors from this pack's files or about its nodes.

        Not that there is no docs/<node>/en.md: the page asks for it before it takes docs/<node>.md, with every pack.
        """
        return [error for error in self.errors if PACK_NAME in error.lower() and not error.endswith("/en.md)")]

    def open(self) -> None:
        """Load the page as a person who has been here before: without the first-time dialog, nor the one of old pages
        about the checkpoint that an example wants, which lies over all that comes after it."""
        self.page.goto(self.host.url)
        self.page.wait_for_function(READY)
        self.set("Comfy.TutorialCompleted", True)
        self.set("Comfy.Workflow.ShowMissingModelsWarning", False)
        self.reload()

    def reload(self) -> None:
        self.page.goto(self.host.url)
        self.page.wait_for_function(READY)
        self.page.wait_for_timeout(1000)

    def set(self, setting: str, value: Any) -> None:
        self.page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [setting, value])

    def load(self, workflow: Any) -> None:
        """Show a workflow, all of it in view. A page that does not understand all of it says so in an alert."""
        self.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
        if workflow["nodes"]:
            self.fit()
        self.check_alerts()

    def load_prompt(self, prompt: Any) -> None:
        """Show a graph that is in the API's form."""
        self.page.evaluate("prompt => app.loadApiJson(prompt, 'prompt')", prompt)
        self.fit()
        self.check_alerts()

    def saved(self) -> Any:
        """The workflow on the page, as it is written into a file: without the fields that are not set."""
        return json.loads(self.page.evaluate("() => JSON.stringify(app.graph.serialize())"))

    def check_alerts(self) -> None:
        """None is on the page, nor was as a dialog."""
        shown = self.page.get_by_text(re.compile("invalid workflow|error reloading|loading aborted", re.I))
        said = [*self.alerts, *shown.all_inner_texts()]
        assert not said, said

    def fit(self) -> None:
        self.page.wait_for_timeout(500)
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(1000)

    def open_template(self, name: str, shot: Path) -> None:
        """Find an example of this pack among the templates, and click it."""
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        self.page.get_by_text(PACK_NAME, exact=True).last.click()
        card = self.page.locator(f"[data-testid='template-workflow-{name}']")
        card.locator("img").first.wait_for()
        self.page.wait_for_timeout(1500)  # pictures fade in
        self.shot(shot)
        card.click()
        card.wait_for(state="hidden")
        self.fit()
        self.check_alerts()

    def run(self) -> None:
        """Press Run."""
        button = self.page.locator("[data-testid='queue-button'] button, button[data-testid='queue-button']")
        button.or_(self.page.get_by_role("button", name="Run", exact=True)).first.click()

    # ------------------------------------------------------------------ what the graph looks like

    def prompt(self) -> Any:
        """What the page would send to the host."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def nodes(self) -> list[str]:
        """Types of the nodes on the canvas."""
        return list(self.page.evaluate("() => app.graph.nodes.map(node => node.type)"))

    def wait_for_picture(self, kind: str) -> None:
        """Until a node of this kind shows a picture that has loaded."""
        self.page.wait_for_function(
            """kind => app.graph.nodes.some(node => node.type === kind && node.imgs?.some(img => img.naturalWidth))""",
            arg=kind,
        )
        self.page.wait_for_timeout(1000)

    def errors_of_nodes(self) -> dict[str, Any]:
        """What the page holds against the nodes of the graph."""
        return dict(self.page.evaluate("() => app.lastNodeErrors ?? {}"))

    def overlapping_nodes(self) -> list[list[str]]:
        """Pairs of nodes that cover each other, title bars and, in Nodes 2.0, what hangs below included."""
        found: list[list[str]] = self.page.evaluate(
            """() => {
                const scale = app.canvas.ds.scale;
                const height = node => {
                    const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
                    if (!drawn) return node.size[1] + 30;
                    const inside = [drawn, ...drawn.querySelectorAll("*")].map(part => part.getBoundingClientRect());
                    const bottom = Math.max(...inside.filter(box => box.height).map(box => box.bottom));
                    return (bottom - drawn.getBoundingClientRect().top) / scale;
                };
                const boxes = app.graph.nodes.map(node => {
                    const [x, y] = node.pos, [width] = node.size;
                    return {title: node.title, left: x, top: y - 30, right: x + width, bottom: y - 30 + height(node)};
                });
                const apart = (a, b) =>
                    a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
                return boxes.flatMap(
                    (a, i) => boxes.slice(i + 1).filter(b => !apart(a, b)).map(b => [a.title, b.title])
                );
            }"""
        )
        return found

    def slot_colours(self, kind: str) -> list[str]:
        """Colours of the output dots of a node, as Nodes 2.0 draws them."""
        found: list[str] = self.page.evaluate(
            """kind => {
                const node = app.graph.nodes.find(node => node.type === kind);
                const dots = document.querySelectorAll(`[data-node-id="${node.id}"] .lg-slot--output .slot-dot`);
                return [...dots].map(dot => getComputedStyle(dot).backgroundColor);
            }""",
            kind,
        )
        return found

    def add_node(self, kind: str) -> tuple[str, dict[str, str], dict[str, str]]:
        """Put a new node on the canvas -> its title, and what stands beside its sockets and in its widgets, by name."""
        title, sockets, widgets = self.page.evaluate(
            """kind => {
                const node = LiteGraph.createNode(kind);
                app.graph.add(node);
                const shown = slot => slot.label ?? slot.localized_name ?? slot.name;
                const named = slots => Object.fromEntries(slots.map(slot => [slot.name, shown(slot)]));
                return [node.title, named(node.inputs.filter(slot => !slot.widget)), named(node.widgets)];
            }""",
            kind,
        )
        self.fit()
        return title, sockets, widgets

    def has_subgraphs(self) -> bool:
        return bool(self.page.evaluate("() => app.graph.subgraphs !== undefined"))

    @property
    def version(self) -> tuple[int, int]:
        """Of the page, which has its own, apart from ComfyUI's."""
        major, minor = self.page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__").split(".")[:2]
        return int(major), int(minor)

    def open_help(self, kind: str) -> None:
        """Select a node and press its info button."""
        self.page.evaluate(
            """kind => {
                const node = app.graph.nodes.find(node => node.type === kind);
                app.canvas.selectNode(node);
                app.canvas.setDirty(true, true);
            }""",
            kind,
        )
        self.page.locator("[data-testid='info-button']").first.click()
        self.page.wait_for_timeout(1500)

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
