"""HTML pages made from the templates beside this module: each stands alone, without a script or a link.

Templates extend `base.html.j2` and import the macros of `macros.html.j2` (tables, figures, pictures and videos as
data). What they are given is escaped, but for `Markup`.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.filesize import decimal

from pixelrl.runtime.files import atomic_path


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a page, atomically: a file in `templates/`, filled with values."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": lambda data: base64.b64encode(data).decode(), "decimal": decimal}
    page = environment.get_template(template).render(**values)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files may be no text


def policy_name(result: Mapping[str, Any]) -> str:
    """Return the name of the policy that a result is about: that of its directory."""
    policy = result["policy"]
    return str(policy["server"]) if "server" in policy else Path(policy.get("run") or policy["export"]).resolve().name
