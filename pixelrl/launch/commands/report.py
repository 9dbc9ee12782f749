"""`pixelrl report`: one page about trainings."""

import glob
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from pixelrl.launch.console import plain_console
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.errors import PixelrlError


@dataclass(frozen=True, kw_only=True)
class Report:
    """Show trainings on one HTML page that stands alone: curves with what they mean, evaluations, data, commands.

    Several runs of a method, given as a quoted glob, become one line with a band. It works while they run.
    """

    methods: Positional[tuple[str, ...]]
    """one or more: directories of runs, or quoted globs of them, such as 'runs/cog_seed*'"""
    out: Path = Path("report.html")
    """HTML file to write"""

    def __call__(self) -> None:
        """Write the page.

        Raises:
            PixelrlError: no run there, or a damaged one.
        """
        from pixelrl.launch.reports.run_page import read_run, write_run_page

        if not self.methods:
            raise PixelrlError("no run to report on; name directories of runs, or quoted globs of them")
        provenance, methods = Provenance(), {}
        names = [with_name(text).name for text in self.methods]
        for text, name in zip(self.methods, names, strict=True):
            found = sorted(glob.glob(text)) if glob.has_magic(text) else [text]  # noqa: PTH207 (a pattern)
            if not found:
                raise PixelrlError(f"{text}: no directory matches in {Path.cwd()}")
            methods[name if names.count(name) == 1 else text] = [read_run(with_name(each)) for each in found]
        write_run_page(self.out, methods, provenance.record())
        count = sum(map(len, methods.values()))
        plain_console().print(f"{self.out}: {count} run{'s' * (count > 1)}", highlight=False, soft_wrap=True)


def with_name(text: str) -> Path:
    """Return a path that ends with a name, also of `.` and `..`."""
    path = Path(text)
    return path.resolve() if path.name in ("", "..") else path
