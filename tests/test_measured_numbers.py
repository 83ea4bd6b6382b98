"""The README's numbers are those of the results that lie beside it."""

import json
import re
from pathlib import Path

from forclip.evaluation.methods import FOR, display_name

ROOT = Path(__file__).parents[1]
FRACTIONS = {"FOR, 10 % of the labels": "labels_10", "FOR, 1 % of the labels": "labels_1"}


def test_the_table_of_the_readme_is_the_ablations() -> None:
    summary = json.loads((ROOT / "docs" / "results" / "toyworld_ablation.json").read_text())["summary"]
    names = FRACTIONS | {
        display_name(name): name for name in summary if summary[name]["kind"] == "baseline" or name == FOR
    }
    rows = re.findall(
        r"^\| \**([^|*]+?)\** \| ([^|]*±[^|]*) \| ([^|]*±[^|]*) \|", (ROOT / "README.md").read_text(), re.M
    )
    assert {names[what] for what, _, _ in rows} == set(names.values())
    for what, *cells in rows:
        for cell, group in zip(cells, ("base", "novel"), strict=True):
            value = summary[names[what]]["values"][group]
            assert cell.strip("* ") == f"{value['mean']:.1f} ± {value['std']:.1f}", (what, group)
        assert summary[names[what]]["seeds"] == [0, 1, 2]


PLACES = {
    "chance": "chance",
    "CLIP (global)": "CLIP (global)",
    "Dense-CLIP": "Dense-CLIP",
    "untrained head": "untrained head",
    "FOR, older rule": "FOR, attention alone, cells from a half",
    "FOR": "FOR",
}


def test_the_tables_of_places_are_the_pointing_benchmarks() -> None:
    results = [
        json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())["summary"]
        for name in ("pointing", "pointing_photos")
    ]
    rows = re.findall(r"^\| ([^|]+) \| (.+) \|$", (ROOT / "docs" / "places.md").read_text(), re.M)
    told = [(what, cells.replace("*", "")) for what, cells in rows if what in PLACES]
    assert [what for what, _ in told] == [*PLACES, *PLACES]
    for place, (what, cells) in enumerate(told):
        found = results[place // len(PLACES)][PLACES[what]]
        measures = ("peak", "centre", "correct", "overlap")
        assert cells == " | ".join(f"{found['base'][m]:.1f} / {found['novel'][m]:.1f}" for m in measures), what
