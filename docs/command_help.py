"""A Sphinx extension: `{command-help} evaluate` shows what `pixelrl evaluate --help` prints, so it cannot drift."""

import io
import os
import re
import sys
from contextlib import redirect_stdout
from typing import Any
from unittest.mock import patch

from docutils import nodes
from docutils.parsers.rst import Directive

WIDTH = "84"


def printed_help(words: list[str]) -> str:
    """Return what `pixelrl WORDS --help` prints."""
    from pixelrl.launch.cli import main

    out = io.StringIO()
    surroundings = {"COLUMNS": WIDTH, "NO_COLOR": "1", "TERM": "xterm"}
    with patch.dict(os.environ, surroundings), patch.object(sys, "argv", ["pixelrl", *words, "--help"]):
        try:
            with redirect_stdout(out):
                main()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"pixelrl {' '.join(words)} --help ends with {end.code}") from end
    return re.sub(r"\x1b\[[0-9;]*m| +$", "", out.getvalue(), flags=re.MULTILINE).strip()


def help_block(text: str) -> nodes.literal_block:
    """Return a block whose lines are broken where they are too long."""
    return nodes.literal_block(text, text, language="none", classes=["help"])


class CommandHelp(Directive):
    """A block with the help of one command."""

    optional_arguments, final_argument_whitespace = 1, True

    def run(self) -> list[nodes.Node]:
        """Return the block."""
        text = printed_help("".join(self.arguments).split())
        return [help_block(text)]


class AllCommands(Directive):
    """A section for each command, in the order of `pixelrl --help`."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        from pixelrl.launch.cli import COMMANDS

        found: list[nodes.Node] = []
        for name in COMMANDS:
            section = nodes.section(ids=[name], names=[name])
            text = printed_help([name])
            section += [nodes.title(text=f"pixelrl {name}"), help_block(text)]
            found.append(section)
        return found


def setup(app: Any) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("command-help", CommandHelp)
    app.add_directive("all-commands", AllCommands)
    return {"parallel_read_safe": True}
