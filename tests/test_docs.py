"""What can be said of the pages without building them: links, names, examples of files."""

import re
from pathlib import Path

import pytest

import pixelrl
from pixelrl.export.contract import read_contract

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in target]
    targets += re.findall(r"\{literalinclude\} (\S+)", text)
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = re.findall(r"^(\w+)$", (ROOT / "docs/index.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(page.stem for page in PAGES if page.parent.name == "docs" and page.stem != "index")


def test_every_public_name_is_documented_once() -> None:
    listed = re.findall(r"^\.\. (?:auto|py:)\w+:: pixelrl\.(\w+)", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert sorted([*listed, "__version__"]) == sorted(pixelrl.__all__)


def test_the_contract_that_is_shown_is_one_that_is_read() -> None:
    assert read_contract(ROOT / "docs/policy_example.json")["format"] == 2


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 100
