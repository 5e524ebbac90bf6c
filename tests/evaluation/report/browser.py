"""Headless Chromium through its driver: what a page prints to the console and what it asks the network for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
LAPTOP = (1366, 768)


@dataclass
class Page:
    """What was seen of a page.

    Attributes:
        driver: Selenium's, for questions about the page.
        console: messages of level warning and above, also of failed requests.
        requests: addresses asked for, the page's own first; those of data: URIs are cut off.
    """

    driver: Any
    console: list[str]
    requests: list[str]


@contextmanager
def browser(profile: Path) -> Iterator[Any]:
    """A Chromium with a profile of its own. Skips the test, with the reason, where there is none.

    Args:
        profile: a folder that does not exist yet.
    """
    selenium = pytest.importorskip("selenium", reason="selenium is not installed (pip install -e .[dev])")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with driver here (Debian: apt-get install chromium chromium-driver)")
    assert selenium is not None
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={LAPTOP[0]},{LAPTOP[1]}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = Chrome(options=options, service=ChromeService(driver))
    try:
        session.set_window_size(*LAPTOP)
        yield session
    finally:
        session.quit()


def visit(session: Any, path: Path) -> Page:
    """Open a file and collect what it did until it was loaded."""
    session.get("about:blank")  # else the requests of Chromium's own start page may still come in
    for kind in ("browser", "performance"):
        session.get_log(kind)  # of the page before
    session.get(path.resolve().as_uri())
    events = [json.loads(entry["message"])["message"] for entry in session.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    console = [f"{entry['level']}: {entry['message']}" for entry in session.get_log("browser")]
    return Page(session, console, [url[:80] for url in urls])


def screenshot(session: Any, path: Path) -> None:
    """The whole page, not only what fits on the screen."""
    height = session.execute_script("return document.documentElement.scrollHeight")
    session.set_window_size(LAPTOP[0], height)
    session.save_screenshot(str(path))
    session.set_window_size(*LAPTOP)
