"""Make docs/demo.jpg, the page that paints on a desktop and on a phone. Needs playwright and a Chromium.

Run in the repository: `python docs/demo_screenshot.py`, after `adaattn demo --get-runtime`.
"""

from __future__ import annotations

import io
import os
import shutil
import threading
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from adaattn_core.demo.server import SiteServer
from adaattn_core.demo.site import build_site
from adaattn_core.demo.web_runtime import find_runtime

TARGET = Path(__file__).with_name("demo.jpg")
DESKTOP = {"viewport": {"width": 1240, "height": 860}}
PHONE = {"viewport": {"width": 400, "height": 860}, "color_scheme": "dark", "is_mobile": True, "has_touch": True}
GAP, PATIENCE_MS = 24, 600_000


def shot(browser: Browser, address: str, device: dict[str, Any], photo: str, style: str) -> Image.Image:
    """The page with an example photo painted in an example style."""
    context = browser.new_context(**device)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.wait_for_function("() => globalThis.page?.photo && page.style")
    page.click(f"#photos [data-name={photo}]")
    page.click(f"#styles [data-name={style}]")
    page.wait_for_selector("#save:enabled")
    page.add_style_tag(content="#status { visibility: hidden }")  # the seconds are those of the machine
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    picture = Image.open(io.BytesIO(page.screenshot()))
    context.close()
    return picture.convert("RGB")


def main() -> None:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with SiteServer(build_site("compact", find_runtime(), is_local=True)) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        desktop = shot(browser, server.address, DESKTOP, "coffee", "auvers")
        phone = shot(browser, server.address, PHONE, "astronaut", "composition_viii")
        browser.close()
        server.shutdown()
    both = Image.new("RGB", (desktop.width + GAP + phone.width, max(desktop.height, phone.height)), "white")
    both.paste(desktop, (0, 0))
    both.paste(phone, (desktop.width + GAP, 0))
    both.save(TARGET, quality=84, optimize=True)


if __name__ == "__main__":
    main()
