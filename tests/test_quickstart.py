"""The notebook runs, its cells are those of docs/python.md, and results show as pictures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from forclip.search.result_list import SHOWN, ResultList
from forclip.types import SearchResult

ROOT = Path(__file__).parents[1]


def cells() -> list[str]:
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in cells():
        exec(compile(cell, "quickstart.ipynb", "exec"), names)
    assert len(names["results"]) == 6
    assert names["results"]._repr_html_().count("data:image/jpeg;base64,") == 6
    assert "for" in names["metrics"]["methods"]
    assert {p.name for p in (tmp_path / "toy").glob("lighthouse_*.json")} == {
        "lighthouse_train.json",
        "lighthouse_val.json",
    }


def test_the_page_has_the_cells_of_the_notebook() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    assert [block.strip() for block in blocks] == cells()


def test_unreadable_pictures_and_hostile_names_do_not_break_the_grid(tmp_path: Path) -> None:
    uri = str(tmp_path / "<script>.jpg")
    results = ResultList(SearchResult(k, "a", uri, 0.5, None, k) for k in range(1, SHOWN + 3))
    html = results._repr_html_()
    assert "<script>" not in html
    assert html.count("<figure") == SHOWN
    assert f"{SHOWN} of {SHOWN + 2}" in html
    assert ResultList()._repr_html_() == "<p>No results.</p>"
    assert results[:1] == [results[0]]
