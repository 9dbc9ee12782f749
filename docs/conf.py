"""Sphinx's configuration: `make docs`, without a network too."""

import re
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from sphinx.util.logging import getLogger

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

from pixelrl.version import __version__  # noqa: E402

logger = getLogger(__name__)
project, release = "pixelrl", __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "command_help",
    "mathml",
]
exclude_patterns = ["_build"]
suppress_warnings = ["ref.python"]  # words in a Literal are taken for names

html_theme = "furo"
html_title = f"pixelrl {release}"
html_theme_options = {"navigation_with_keys": True}
html_show_copyright = False
html_static_path = ["pages.css"]
html_css_files = ["pages.css"]
html_math_renderer = "mathml"

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # a notebook is run again when it has changed
nb_execution_cache_path = str(HERE.parent / "build/notebooks")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
copybutton_prompt_text = "$ "
highlight_language = "console"

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
napoleon_use_ivar = True
napoleon_attr_annotations = False

INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "gymnasium": "https://gymnasium.farama.org/",
}


def inventory(name: str, address: str) -> str | None:
    """Return the file with a site's names, fetched now or before; without a network and it, there are no such links."""
    path = HERE.parent / "build/inventories" / f"{name}.inv"
    try:
        with urlopen(address + "objects.inv", timeout=3) as answer:
            content = answer.read()
        if content.startswith(b"# Sphinx inventory"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except (OSError, ValueError):
        pass
    return str(path) if path.exists() else None


found = {name: inventory(name, address) for name, address in INVENTORIES.items()}
intersphinx_mapping = {name: (INVENTORIES[name], path) for name, path in found.items() if path}


def name_files(app: Any, docname: str, source: list[str]) -> None:
    """Turn links to files of the repository, which no page is made of, into their paths; they must exist."""

    def shown(link: re.Match[str]) -> str:
        text, target = link.groups()
        if not (HERE / target).exists():
            logger.warning(f"{docname}: there is no {target}")
        path = target.removeprefix("../")
        return f"`{path}`" if text.strip("`") in path else f"{text} (`{path}`)"

    if not docname.startswith("notebooks/"):  # those are JSON, and link to pages only
        source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)#]+)\)", shown, source[0])


FIELDS: dict[str, list[str]] = {}
"""Docstrings of fields as they are: Napoleon takes what stands before a colon in them for a type."""


def as_rst(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Keep docstrings' |x|, x_ and * as they are: outside of backticks they are no markup."""
    for number, line in enumerate(lines):
        parts = re.split(r"(`+[^`]+`+)", line)
        parts[::2] = [re.sub(r"([|*]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
        lines[number] = "".join(parts)
    if what in ("attribute", "property"):
        FIELDS[name] = [*lines]


def restore_fields(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Undo what Napoleon did to fields."""
    lines[:] = FIELDS.pop(name, lines)


def short_signature(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Leave out a signature that is a page of its own, since the fields follow; make others such that Sphinx reads."""
    long = signature is not None and signature.count(":") > 15
    return ("" if long else (signature or "").replace("<factory>", "...") or signature), returns


def setup(app: Any) -> None:
    """Add what is above to the build."""
    app.connect("source-read", name_files)
    app.connect("autodoc-process-docstring", as_rst, priority=400)
    app.connect("autodoc-process-docstring", restore_fields, priority=600)
    app.connect("autodoc-process-signature", short_signature)
