"""`python -m tests.browser.monitor_pictures FOLDER`: the dashboard over a made-up past, in light, dark and on a phone."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from monitors.page.server import bound, served
from tests.browser.conftest import FLAGS, chromium
from tests.monitors.histories import sources

PICTURES: dict[str, tuple[Literal["light", "dark"], int]] = {
    "monitor-page": ("light", 1280),
    "monitor-page-dark": ("dark", 1280),
    "monitor-page-phone": ("light", 360),
}


def main(folder: Path) -> None:
    """Take them."""
    with (
        TemporaryDirectory() as history,
        bound("127.0.0.1", 0) as address,
        served(address, sources(Path(history)), every=3600) as board,
        sync_playwright() as playwright,
    ):
        board.refresh()
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS, timeout=60_000)
        for name, (scheme, width) in PICTURES.items():
            take(browser, address.url, folder / f"{name}.png", scheme, width)
        browser.close()


def take(browser: Browser, url: str, file: Path, scheme: Literal["light", "dark"], width: int) -> None:
    """The whole page, with the worst cell of the first feature that drifted opened."""
    with browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(url)
        for part in ("windows", "alerts", "versions", "freshness"):
            page.wait_for_selector(f"html[data-drawn{part}]", state="attached")
        page.locator("#heat td.alarm").nth(5).click()
        page.wait_for_selector("#histogram .main-svg")
        page.screenshot(path=file, full_page=True, animations="disabled")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
