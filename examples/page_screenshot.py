"""Makes docs/page.png, the picture of the page in docs/serving.md, from a server that runs.

serve run configs/serve/rerank.yaml
python examples/page_screenshot.py http://127.0.0.1:8000/ docs/page.png
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright


def save(browser: Browser, url: str, file: Path) -> None:
    """The sample, ranked by the default model."""
    page = browser.new_page(viewport={"width": 1100, "height": 795})
    page.goto(url)
    page.get_by_role("button", name="English").click()
    page.get_by_role("button", name="Rank").click()
    page.get_by_role("list", name="Ranking").wait_for()
    page.mouse.move(0, 0)
    page.screenshot(path=file, animations="disabled")
    page.close()


if __name__ == "__main__":
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")  # or else the one of Playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        save(browser, sys.argv[1], Path(sys.argv[2]))
