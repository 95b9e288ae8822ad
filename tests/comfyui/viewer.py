"""The attention viewer on ComfyUI's page, and what the tests do with it. Needs playwright and a Chromium."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.comfyui.browser import Desk

VIEWER = """const deep = graph => graph.nodes.flatMap(node => [node, ...(node.subgraph ? deep(node.subgraph) : [])]);
    const found = deep(app.rootGraph ?? app.graph).filter(node => node.type === "AdaAttN_AttentionMap");
    const node = found.sort((a, b) => a.id - b.id)[0];
    const element = node.widgets.find(widget => widget.name === "viewer").element;
    const shadow = element.shadowRoot;"""
"""The first such node, by its number since a click changes their order in the graph, and its viewer."""


class Viewer:
    """The viewer of the first node of its kind, as a person uses it."""

    def __init__(self, page: Desk) -> None:
        self.desk, self.page = page, page.page

    def ask(self, expression: str, argument: Any = None) -> Any:
        return self.page.evaluate(f"argument => {{ {VIEWER} return {expression}; }}", argument)

    def wait(self, condition: str) -> None:
        self.page.wait_for_function(f"() => {{ {VIEWER} return {condition}; }}", timeout=120_000)

    def wait_until_shown(self) -> None:
        self.wait("!shadow.querySelector('.body').hidden && shadow.querySelector('img').naturalWidth")

    def run(self) -> None:
        self.desk.run()
        self.wait_until_shown()

    def center(self) -> None:
        """Bring the node to the middle of the page, large enough to point at."""
        self.ask("app.canvas.centerOnNode(node)")
        self.ask("(app.canvas.ds.changeScale(1, [800, 450]), app.canvas.centerOnNode(node))")
        self.page.wait_for_timeout(600)

    def place(self, pane: str, x: float, y: float) -> tuple[float, float]:
        """Where on the page a place of a picture is."""
        box = self.ask(f"shadow.querySelector('[data-pane={pane}]').getBoundingClientRect().toJSON()")
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def hover(self, pane: str, x: float, y: float) -> None:
        self.page.mouse.move(*self.place(pane, x, y))
        self.page.wait_for_timeout(100)

    def click(self, pane: str, x: float, y: float) -> None:
        self.page.mouse.click(*self.place(pane, x, y))
        self.page.wait_for_timeout(100)

    def press(self, selector: str) -> None:
        self.ask(f"shadow.querySelector('{selector}').click()")

    @property
    def status(self) -> str:
        return str(self.ask("shadow.querySelector('.status').textContent"))

    @property
    def widgets(self) -> dict[str, Any]:
        return dict(self.ask("Object.fromEntries(node.widgets.map(widget => [widget.name, widget.value]))"))

    def darkness(self, pane: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """What is drawn over a picture: (rows, columns), 0 where it is as it was, 1 where it is darkest."""
        alpha = self.ask(
            f"""(() => {{ const layer = shadow.querySelector('[data-pane={pane}] canvas');
            const colors = layer.getContext('2d').getImageData(0, 0, layer.width, layer.height).data;
            return {{rows: layer.height, alpha: [...colors].filter((_, index) => index % 4 === 3)}}; }})()"""
        )
        values = np.array(alpha["alpha"], dtype=np.float64).reshape(alpha["rows"], -1)
        return values / (255 * 0.8)


def contrast(one: str, other: str) -> float:
    """Of two colours rgb(r, g, b): (L1 + 0.05) / (L2 + 0.05), L the relative luminance. Source: WCAG 2, 1.4.3."""

    def luminance(color: str) -> float:
        parts = [float(part) / 255 for part in color.partition("(")[2].rstrip(")").split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)
