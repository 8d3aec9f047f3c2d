"""A real Chromium and a real server; without Chromium these tests are skipped, but never where CI promises one."""

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from stream_trainer.settings import environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """Where it is; without it the test is skipped, or fails when CI is true."""
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        lacking("Chromium is not installed")
        raise AssertionError
    return found


def lacking(what: str) -> None:
    """Skip, or fail where everything has to be there."""
    if environment().get("CI") == "true":
        pytest.fail(f"{what}, but CI is true")
    pytest.skip(f"{what}; with `apt-get install chromium` and the extra dev the page is tested")


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """One a module, not a session: while Playwright runs, no other test could start an event loop in this thread."""
    path = chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        lacking("playwright is not installed")
        raise
    with sync_playwright() as playwright:  # a new user-data-dir each time is Playwright's own doing
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=60_000)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """A page whose every uncaught error, message of the console and request to elsewhere fails the test."""
    with browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light") as context:
        page = context.new_page()
        page.set_default_timeout(15_000)
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if _alarming(message.text) else None)
        page.on("request", lambda request: wrong.append(request.url) if "127.0.0.1" not in request.url else None)
        yield page
        assert not wrong


def _alarming(text: str) -> bool:
    """The browser notes each answer that is an error by itself."""
    return "Failed to load resource" not in text
