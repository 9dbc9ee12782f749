"""HTML pages that need nothing else: the style, tables, pictures and films as data; no script and no link.

They read the browser's light or dark mode.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pixelrl.runtime.files import atomic_path

STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5d6570; --paper: #fbfbf9; --card: #ffffff; --line: #dcdfe3;
  --mark: #2f6fb0; --error: #b3261e; --warning: #8a5a00; --note: #17677a; --good: #1c7a45; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa3ae; --paper: #14171b; --card: #1d2127;
  --line: #343a42; --mark: #74aee8; --error: #ff8a80; --warning: #f0bd59; --note: #6fc6da; --good: #6fd39b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; overflow-wrap: anywhere; }
h3 { font-size: .95rem; margin: 1.2rem 0 .4rem; color: var(--soft); font-weight: 600; }
.verdict { font-size: 1.05rem; font-weight: 600; overflow-wrap: anywhere; } .soft { color: var(--soft); }
.good { color: var(--good); } .error { color: var(--error); } .warning { color: var(--warning); }
.note { color: var(--note); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .3rem 0; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; } td.n { text-align: right; } td.say { overflow-wrap: break-word; }
td:first-child { white-space: nowrap; overflow-wrap: normal; }
code { font: .87em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.row { display: flex; align-items: flex-start; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; padding: .6rem .7rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
figcaption { font-size: .82rem; color: var(--soft); max-width: 15.5rem; }
svg { display: block; } svg .b { fill: var(--mark); } svg .l { stroke: var(--mark); fill: none; stroke-width: 2; }
svg .a { stroke: var(--line); } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
img, video { max-width: 100%; border-radius: 8px; border: 1px solid var(--line); }
.story { display: flex; align-items: flex-start; gap: .6rem; } .story video { width: 16%; min-width: 9rem; }
.story img { flex: 1; min-width: 0; } .views img { height: 9rem; image-rendering: pixelated; }
"""


def write_document(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page, atomically.

    Args:
        path: of the page.
        title: plain text, for the browser.
        parts: the page's HTML, from top to bottom.
    """
    head = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width, initial-scale=1'>",
        f"<title>{text(title)}</title>",
        f"<style>{STYLE}</style></head><body>",
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join([*head, *parts, "</body></html>"]) + "\n", encoding="utf-8")


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
    body = "".join(f"<tr>{''.join(f'<td class=say>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>"


def text(value: object) -> str:
    """Return text that a page can hold, whatever a file says."""
    return escape(str(value))
