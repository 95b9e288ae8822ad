"""A hook of mkdocs: pages of the site that lie elsewhere in the repository, and links to files that are no pages.

README.md is the first page, CHANGELOG.md the last one, and the nodes' English help pages are in nodes/.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import normpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
NODES = ROOT / "web" / "docs"
LINK = re.compile(r'(\]\(|src=")([^)"#:]+)(#[^)"]*)?([)"])')


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401
    """Adds the pages."""
    for page, path in (("index.md", ROOT / "README.md"), ("CHANGELOG.md", ROOT / "CHANGELOG.md")):
        files.append(File.generated(config, page, content=site_links(path, page, config.repo_url)))
    for path in sorted(NODES.glob("*/en.md")):
        files.append(File.generated(config, f"nodes/{path.parent.name}.md", content=path.read_text(encoding="utf-8")))
    for path in sorted(NODES.glob("pictures/*.jpg")):
        files.append(File.generated(config, f"nodes/pictures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ANN401
    """Links out of docs/ lead to the repository."""
    generated = page.file.src_uri in ("index.md", "CHANGELOG.md") or page.file.src_uri.startswith("nodes/")
    return markdown if generated else with_links(markdown, Path("docs") / page.file.src_uri, config.repo_url)


def site_links(path: Path, page: str, repository: str) -> str:
    return with_links(path.read_text(encoding="utf-8"), path.relative_to(ROOT), repository)


def with_links(markdown: str, path: Path, repository: str) -> str:
    """The text with links that hold in the site.

    Args:
        markdown: of a page.
        path: its place in the repository.
        repository: address of the repository.
    """
    depth = len(path.parts) - 1 - (path.parts[0] == "docs")

    def replace(found: re.Match[str]) -> str:
        start, target, anchor, end = found.groups(default="")
        place = normpath((path.parent / target).as_posix())
        if place.startswith("web/docs/pictures/"):
            target = "../" * depth + place.replace("web/docs/", "nodes/")
        elif place.startswith("docs/") and Path(place).suffix != ".py":
            target = "../" * depth + place.removeprefix("docs/")
        elif (ROOT / place).exists():
            target = f"{repository}/blob/main/{place}"
        return f"{start}{target}{anchor}{end}"

    return LINK.sub(replace, markdown)
