"""Sources: which files, which demos, by what rules."""

from itertools import pairwise
from pathlib import Path

import pytest

from pixelrl.datasets.buffer.cache import Cache
from pixelrl.datasets.buffer.load_dataset import choose_demos
from pixelrl.datasets.buffer.recorded_file import RecordedFile
from pixelrl.datasets.buffer.sources import Source, check_together
from pixelrl.datasets.hdf5.reader import FileContents
from pixelrl.runtime.errors import DataError


def test_globs_are_expanded_in_order_and_each_file_comes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.hdf5", "a.hdf5", "deep/er/c.hdf5", "odd[1].hdf5"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)

    def found(*patterns: str) -> list[str]:
        return [str(path) for path in Source(name="a", files=tuple(map(Path, patterns))).paths()]

    assert found("[ab].hdf5") == ["a.hdf5", "b.hdf5"]
    assert found("b.hdf5", "*.hdf5", str(tmp_path / "a.hdf5")) == ["b.hdf5", "a.hdf5", "odd[1].hdf5"]
    assert found("**/c.hdf5") == ["deep/er/c.hdf5"]
    assert found("odd[1].hdf5") == ["odd[1].hdf5"]  # a file of that very name
    assert found("missing.hdf5") == ["missing.hdf5"]  # opening it says so
    with pytest.raises(DataError, match=r"source 'a': no file matches x\*\.h5 in "):
        found("x*.h5")


def recording(name: str, demos: int) -> RecordedFile:
    contents = FileContents(
        path=Path(name),
        demos={f"demo_{i}": 5 + i for i in range(demos)},
        pictures={},
        vectors={},
        action=(),
        env_args={},
    )
    return RecordedFile(contents=contents, unit="", cache=Cache(Path(name)))


def chosen(fraction: float, pick: str = "random", seed: int = 0) -> list[tuple[str, str]]:
    source = Source(name="a", files=(Path("x"),), fraction=fraction, pick=pick)  # type: ignore[arg-type]
    files = [part.contents for part in choose_demos([recording("x", 30), recording("y", 10)], source, seed)]
    assert all(steps == 5 + int(name[5:]) for file in files for name, steps in file.demos.items())
    return [(file.path.name, name) for file in files for name in file.demos]


def test_a_fraction_counts_demos_over_all_files_and_smaller_ones_lie_within_larger_ones() -> None:
    everything = chosen(1.0)
    assert len(everything) == 40
    for pick in ("first", "random"):
        parts = [chosen(fraction, pick) for fraction in (0.001, 0.05, 0.25, 0.7, 1.0)]
        assert [len(part) for part in parts] == [1, 2, 10, 28, 40]
        for smaller, larger in pairwise(parts):
            assert set(smaller) < set(larger)
            assert larger == [demo for demo in everything if demo in set(larger)]  # in the files' order
    assert chosen(0.25, "first") == [("x", f"demo_{i}") for i in range(10)]
    assert chosen(0.25, seed=1) != chosen(0.25) == chosen(0.25)
    assert {file for file, _ in chosen(0.25)} == {"x", "y"}


def test_sources_that_cannot_stand_together() -> None:
    one, other = (Source(name=name, files=(Path("x"),), share=share) for name, share in (("a", 0.5), ("b", None)))
    with pytest.raises(DataError, match=r"shares are a: 0\.5, b: None; expected a share in all sources, or in none"):
        check_together([one, other])
    with pytest.raises(DataError, match=r"named \['a', 'a'\]; expected .* different names"):
        check_together([one, one])
