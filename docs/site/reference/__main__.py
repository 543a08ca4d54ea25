"""Writes the reference pages: `python -m docs.site.reference`, or `make docs`."""

from docs.site.reference.pages import DIRECTORY, PAGES

if __name__ == "__main__":
    DIRECTORY.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (DIRECTORY / name).write_text(make(), encoding="utf-8")
