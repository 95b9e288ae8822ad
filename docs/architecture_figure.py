"""Draw docs/architecture.svg, the layers of the library and the imports between them, from the sources.

Run in the repository: `python docs/architecture_figure.py`. The order of the layers is that of the import-linter
contract in pyproject.toml. Each package is a box on the diagonal; a dot says that the package of its row imports the
package of its column. Since imports point down the layers, all dots are above the diagonal.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = Path(__file__).with_name("architecture.svg")

PURPOSES = {
    "nodes": "ComfyUI nodes",
    "cli": "command line, entry point",
    "commands": "one module for each command",
    "benchmarking": "seconds and memory",
    "demo": "a page that paints in a browser",
    "training": "losses, data, the training run",
    "evaluation": "metrics, comparison, report",
    "viewer": "the attention viewer and its data",
    "export": "models as ONNX files",
    "inference": "encode, transfer, decode, mix",
    "checkpoints": "weights files and downloads",
    "models": "encoder, attention, decoder",
    "io": "images and clips as tensors",
    "ops": "pure functions on tensors",
    "runtime": "devices, threads, progress",
    "errors": "exceptions that callers catch",
}
DRAWN_WITH_CLI = {"__main__", "train"}
"""Modules that start the command line under another name."""

ROW, STEP, BOX, TEXT, MARGIN = 38, 50, 116, 232, 20
"""Pixels: height of a row, distance of two columns, width of a box, width of the purposes, margin of the figure."""

STYLE = """
.back { fill: #ffffff; stroke: #d0d7de } .band { fill: #f6f8fa }
text { font: 13px system-ui, sans-serif; fill: #57606a } .name { font-weight: 600; fill: #ffffff; text-anchor: middle }
.box { fill: #0b5cad } .line { fill: none; stroke: #8c959f; stroke-width: 1.2 } .dot, .tip { fill: #57606a }
@media (prefers-color-scheme: dark) {
.back { fill: #0d1117; stroke: #30363d } .band { fill: #161b22 } text { fill: #9da7b1 }
.box { fill: #1f6feb } .line { stroke: #6e7681 } .dot, .tip { fill: #9da7b1 }
}"""


def layers() -> list[str]:
    """Packages and modules of adaattn_core from the top layer to the lowest, below the nodes."""
    contract = re.search(r"^layers = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M | re.S)
    assert contract, "pyproject.toml has no contract of layers"
    names = re.findall(r"\w+", contract[1])
    return ["nodes", *(name for name in names if name not in DRAWN_WITH_CLI)]


def imported_names(path: Path) -> Iterator[str]:
    """Dotted names, from the root of the repository, of everything that a file imports relatively."""
    folder = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = [*folder[: len(folder) + 1 - node.level], *filter(None, [node.module])]
            yield from (".".join([*parts, alias.name]) for alias in node.names)


def imports(layer: str) -> set[str]:
    """Layers that a layer imports, itself aside."""
    folder = ROOT / layer if layer == "nodes" else ROOT / "adaattn_core" / layer
    files = folder.glob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    names = (name.split(".") for path in files for name in imported_names(path))
    return {parts[1] for parts in names if parts[0] == "adaattn_core"} & set(layers()) - {layer}


def figure() -> str:
    """The SVG: bands, then lines (right from the importer, down to the imported), dots, and boxes."""
    names = layers()
    left = [MARGIN + TEXT + STEP * index for index in range(len(names))]
    middle = [MARGIN + ROW * index + ROW // 2 for index in range(len(names))]
    entry = [x + BOX - 22 for x in left]  # where lines reach a box from above, to the right of the box before it
    width, height = left[-1] + BOX + MARGIN, 2 * MARGIN + ROW * len(names)
    edges = [(row, names.index(name)) for row, layer in enumerate(names) for name in imports(layer)]
    bands, lines, dots, boxes = [], [], [], []
    for index, name in enumerate(names):
        top = middle[index] - ROW // 2
        if index % 2 == 0:
            bands.append(f'<rect class="band" x="{MARGIN // 2}" y="{top}" width="{width - MARGIN}" height="{ROW}"/>')
        columns = [column for row, column in edges if row == index]
        if columns:
            lines.append(f'<path class="line" d="M{left[index] + BOX} {middle[index]}H{entry[max(columns)]}"/>')
        rows = [row for row, column in edges if column == index]
        if rows:
            end = top + 5
            lines.append(f'<path class="line" d="M{entry[index]} {middle[min(rows)]}V{end - 6}"/>')
            dots.append(f'<path class="tip" d="M{entry[index]} {end}l-4 -8h8z"/>')
        boxes.append(f'<rect class="box" x="{left[index]}" y="{top + 5}" width="{BOX}" height="{ROW - 10}" rx="5"/>')
        boxes.append(f'<text class="name" x="{left[index] + BOX // 2}" y="{middle[index] + 4}">{name}</text>')
        boxes.append(f'<text x="{MARGIN}" y="{middle[index] + 4}">{PURPOSES[name]}</text>')
    dots += [f'<circle class="dot" cx="{entry[column]}" cy="{middle[row]}" r="4"/>' for row, column in sorted(edges)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>Layers of adaattn_core</title>\n<style>{STYLE}\n</style>",
        f'<rect class="back" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        *bands, *lines, *dots, *boxes,
        "</svg>\n",
    ])  # fmt: skip


if __name__ == "__main__":
    TARGET.write_text(figure(), encoding="utf-8", newline="\n")
