"""The frame of the HTML pages: their templates, and images and scripts that lie in the page itself."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

_SHARED = Path(__file__).parent  # of page.html.jinja


def page_template(path: Path) -> Template:
    """The template of a page, which can import ``page.html.jinja``; all that it shows is escaped."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FileSystemLoader(_SHARED)
    )
    return environment.from_string(path.read_text(encoding="utf-8"))


def data_uri(png: bytes) -> str:
    """The image as the value of an ``src`` attribute."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def script_hash(script: str) -> str:
    """How a content security policy names an inline script: ``sha256-...``."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
