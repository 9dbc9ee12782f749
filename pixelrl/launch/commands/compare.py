"""`pixelrl compare`: which policy is better, by how much, and how sure that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from tyro.conf import Positional, arg

from pixelrl.launch.console import plain_console, table_of
from pixelrl.launch.provenance import Provenance
from pixelrl.runtime.files import write_json


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Tell whether the first policy is better or worse than each of the others, by how much, and how sure that is.

    One run each: the exact McNemar test on the same starts, which judges these two policies, and not their recipes.
    Several runs of each recipe: an exact sign-flip test over runs that share training seeds, else a permutation test;
    no verdict for fewer than six runs. p values are adjusted for the number of comparisons.
    """

    methods: Positional[tuple[str, ...]]
    """two or more: directories with an evaluation.json, or quoted globs of them, such as 'runs/cog_seed*'"""
    alpha: float = 0.05
    """how often a verdict may be wrong where there is no difference"""
    margin: float = 0.1
    """largest difference of success rates that does not matter; tells equivalence, for runs that share seeds, and of
    single runs also whether the others are not worse than the first by more (Tango's score interval, one-sided 5 %)"""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """JSON file to write"""

    def __call__(self) -> None:
        """Compare, print two tables, and write the file.

        Raises:
            PixelrlError: no evaluation there, or evaluations that cannot be compared.
        """
        from pixelrl.launch.comparison import compare_methods

        provenance = Provenance()
        result = compare_methods(self.methods, alpha=self.alpha, margin=self.margin) | provenance.record()
        print_comparison(result, plain_console())
        if self.out is not None:
            write_json(self.out, result)


def print_comparison(result: Mapping[str, Any], console: Console) -> None:
    """Print what each method reached, and the first one against each of the others."""
    alone = table_of("method", "runs", "successes", "rate", "95 % interval", "middle half")
    for each in result["methods"]:
        low, high = each["interval_95"]
        share = f"{each['successes']}/{each['episodes']}"
        middle = f"{each['iqm']:.1%}" if "iqm" in each else ""
        rate, interval = f"{each['rate']:.1%}", f"{low:.1%} to {high:.1%}"
        alone.add_row(each["name"], str(each["runs"]), share, rate, interval, middle)
    against = table_of(f"{result['methods'][0]['name']} is", "than", "by", "95 % interval", "p (Holm)", "won / lost")
    for each in result["comparisons"]:
        low, high = each["interval_95"]
        counts = f"{each['won']} / {each['lost']}" if "won" in each else ""
        interval = f"{low:+.1%} to {high:+.1%}"
        by, p = f"{each['difference']:+.1%}", "" if each["p"] is None else f"{each['p_adjusted']:.2g}"
        word = "equivalent" if each.get("equivalent") and each["verdict"] == "undetermined" else each["verdict"]
        against.add_row(word, each["second"], by, interval, p, counts)
    console.print(alone, against)
    for each in result["comparisons"]:
        console.print(f"{each['second']}: {each['test']}", soft_wrap=True)
        if "non_inferior" in each:
            word, least = "not worse" if each["non_inferior"] else "perhaps worse", each["score_interval_90"][1]
            says = f"{word} than {each['first']} by more than {each['margin']:.0%}: at most {least:.1%}"
            console.print(f"{each['second']}: {says}, with 95 % confidence (score interval)", soft_wrap=True)
        if each["p"] is None:
            few = f"no verdict from {each['n']} runs of a method; it takes six"
            console.print(f"{each['second']}: {few}", soft_wrap=True)
