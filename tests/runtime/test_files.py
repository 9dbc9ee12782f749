"""Files are whole or absent."""

import json
from pathlib import Path

import pytest

from pixelrl.runtime.files import atomic_path, atomic_tree, write_json


def test_a_finished_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "model.bin"
    for text in ("old", "new"):
        with atomic_path(path) as temporary:
            assert temporary.suffix == ".bin"
            temporary.write_text(text)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "model.bin"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_comes_back_and_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"task": "Plateau · é", "interval": [0.1, 0.9]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"task": "Plateau · é", "interval": [0.1, 0.9]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "parent/data-v0"
    with pytest.raises(KeyboardInterrupt), atomic_tree(target) as temporary:
        (temporary / "meta").mkdir(parents=True)
        raise KeyboardInterrupt
    assert list(target.parent.iterdir()) == []
    with atomic_tree(target) as temporary:
        assert temporary.name == "data-v0"
        (temporary / "meta").mkdir(parents=True)
        (temporary / "meta/info.json").write_text("{}")
        (temporary.parent / "leftover").write_text("")
        assert not target.exists()
    assert list(target.parent.iterdir()) == [target]
    assert (target / "meta/info.json").read_text() == "{}"
    with pytest.raises(FileExistsError), atomic_tree(target):
        pass
