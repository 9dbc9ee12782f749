"""HTML by f-strings, for the pages that are not templates yet."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pixelrl.launch.reports.pages import write_page


def write_document(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page, atomically.

    Args:
        path: of the page.
        title: plain text, for the browser.
        parts: the page's HTML, from top to bottom.
    """
    write_page(path, "base.html.j2", title=title, body=Markup("\n".join(parts)))


def origin(record: Mapping[str, Any]) -> str:
    """Return a line that says which command made a result, when, and how long it took; see `Provenance`."""
    words = f"pixelrl {record['version']}, {record['began']}, {record['seconds']} s: {' '.join(record['command'])}"
    return f"<div class=soft><code>{text(words)}</code></div>"


def name_of(result: Mapping[str, Any]) -> str:
    """Return the name of the policy that a result is about."""
    policy = result["policy"]
    return Path(policy.get("run") or policy["export"]).resolve().name


def picture(png: bytes, name: str) -> str:
    """Return a PNG as data; `name` is for who cannot see it."""
    return f"<img alt='{text(name)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"


def film(mp4: bytes) -> str:
    """Return an MP4 as data; it plays when told to."""
    source = base64.b64encode(mp4).decode()
    return f"<video controls muted loop playsinline src='data:video/mp4;base64,{source}'></video>"


def figure(drawn: str, caption: str) -> str:
    """Return a figure with its caption; both are HTML already."""
    return f"<figure>{drawn}<figcaption>{caption}</figcaption></figure>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>"


def text(value: object) -> str:
    """Return text that a page can hold, whatever a file says."""
    return escape(str(value))
