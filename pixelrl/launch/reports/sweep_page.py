"""What a sweep tells: a table, a figure with a plot for each perturbation, and a page with what the policy saw."""

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Any

from rich.console import Console

from pixelrl.launch.console import table_of
from pixelrl.launch.reports.axes import plain, small_plots
from pixelrl.launch.reports.pages import policy_name, write_page
from pixelrl.runtime.files import atomic_path

COLOURS = {"better": "#1e8a4e", "worse": "#c83834", "undetermined": "#2b6cb0"}
UNPERTURBED = "unperturbed"

Cell = Mapping[str, Any]


def view_path(directory: Path, key: str) -> Path:
    """Return where the first picture of a cell is."""
    return directory / "sweep" / f"{key}.png"


def by_kind(result: Mapping[str, Any]) -> dict[str, list[Cell]]:
    """Return perturbation -> its cells by level."""
    cells = [cell for key, cell in result["cells"].items() if key != UNPERTURBED]
    names = list(dict.fromkeys(cell["perturbation"] for cell in cells))
    ordered = sorted(cells, key=lambda cell: (names.index(cell["perturbation"]), cell["level"]))
    return {name: list(group) for name, group in groupby(ordered, key=lambda cell: str(cell["perturbation"]))}


def draw_sweep(path: Path, result: Mapping[str, Any]) -> None:
    """Draw success against level, a plot for each perturbation, as one PNG, atomically."""
    kinds, base = by_kind(result), result["cells"][UNPERTURBED]
    drawn, axes = small_plots(len(kinds), 0.7, sharey=True)
    for axis, (name, cells) in zip(axes, kinds.items(), strict=False):
        points = sorted([{**base, "level": 0.0}, *cells], key=lambda cell: cell["level"])
        axis.axhspan(*base["success_interval_95"], color="#8a8d91", alpha=0.15, linewidth=0)
        axis.plot([p["level"] for p in points], [p["success_rate"] for p in points], color="#8a8d91", linewidth=1)
        for point in points:
            rate, (low, high) = point["success_rate"], point["success_interval_95"]
            colour = COLOURS[point.get("verdict", "undetermined")]
            error = [[rate - low], [high - rate]]
            axis.errorbar(point["level"], rate, error, fmt="o", markersize=5, color=colour, capsize=3)
        plain(axis, name, cells[0]["unit"], "")
        axis.set(ylim=(-0.04, 1.04), xticks=[p["level"] for p in points])
        axis.set_xticks(axis.get_xticks(), [f"{p['level']:g}" for p in points], size=8)
    title = (
        f"Success of {base['episodes']} episodes, the same starts everywhere, with 95 % intervals; "
        "red: worse than unperturbed (grey band)"
    )
    drawn.suptitle("\n".join(wrap(title, round(14 * drawn.get_figwidth()))), size=10)
    with atomic_path(path) as temporary:
        drawn.savefig(temporary, dpi=110)


def row_of(cell: Cell) -> tuple[str, ...]:
    """Return what a table says of a cell, as plain text."""
    low, high = cell["success_interval_95"]
    rate = f"{cell['successes']}/{cell['episodes']}", f"{low:.0%}-{high:.0%}"
    if "perturbation" not in cell:
        return UNPERTURBED, "", *rate, "", "", ""
    test, p = cell["against_unperturbed"], f"{cell['p_adjusted']:.2g}"
    starts = f"+{test['won']} -{test['lost']}"
    return cell["perturbation"], f"{cell['level']:g}", *rate, starts, p, cell["verdict"]


HEAD = ("perturbation", "level", "success", "95 % interval", "starts", "p (Holm)", "verdict")


def print_sweep(result: Mapping[str, Any], console: Console) -> None:
    """Print the table."""
    shown = table_of(*HEAD)
    shown.add_row(*row_of(result["cells"][UNPERTURBED]))
    for cells in by_kind(result).values():
        shown.add_section()
        for cell in cells:
            shown.add_row(*row_of(cell))
    console.print(shown)


def write_sweep_page(directory: Path, result: Mapping[str, Any]) -> None:
    """Write `sweep.html`: the figure, what the policy saw, the table."""
    base = result["cells"][UNPERTURBED]
    write_page(
        directory / "sweep.html",
        "sweep.html.j2",
        title=f"Robustness of {policy_name(result)}",
        result=result,
        base=base,
        chart=(directory / "sweep.png").read_bytes(),
        views=views(directory, result),
        head=HEAD,
        rows=[row_of(base), *(row_of(cell) for cells in by_kind(result).values() for cell in cells)],
    )


def views(directory: Path, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the first picture of the first episode under each perturbation that shows, beside the unperturbed one."""
    plain = view_path(directory, UNPERTURBED)
    if not plain.is_file():
        return []
    usual, found = plain.read_bytes(), []
    for name, cells in by_kind(result).items():
        pictures = [(UNPERTURBED, usual)]
        for cell in cells:
            path = view_path(directory, f"{name}_{cell['level']:g}")
            if path.is_file() and (seen := path.read_bytes()) != usual:
                pictures.append((f"{cell['level']:g}", seen))
        if len(pictures) > 1:
            found.append({"name": name, "unit": cells[0]["unit"], "pictures": pictures})
    return found
