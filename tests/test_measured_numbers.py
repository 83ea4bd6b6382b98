"""Numbers in the README and the docs equal those in docs/results."""

import json
import re
from pathlib import Path

from forclip.evaluation.methods import FOR, display_name

ROOT = Path(__file__).parents[1]
VARIANTS = {
    "FOR, the tower's last stage trained too": "last_stage",
    "FOR with tiles, 3 x 3": "for_tiles_3x3",
    "FOR with tiles, last stage trained too": "for_tiles_3x3_last_stage",
    "FOR, 10 % of the labels": "labels_10",
    "FOR, 1 % of the labels": "labels_1",
}


def test_readme_table_matches_the_ablation() -> None:
    summary = json.loads((ROOT / "docs" / "results" / "toyworld_ablation.json").read_text())["summary"]
    names = VARIANTS | {
        display_name(name): name for name in summary if summary[name]["kind"] == "baseline" or name == FOR
    }
    rows = re.findall(
        r"^\| \**([^|*]+?)\** \| ([^|]*±[^|]*) \| ([^|]*±[^|]*) \|", (ROOT / "README.md").read_text(), re.M
    )
    assert {names[row] for row, _, _ in rows} == set(names.values())
    for row, *cells in rows:
        for cell, group in zip(cells, ("base", "novel"), strict=True):
            value = summary[names[row]]["values"][group]
            assert cell.strip("* ") == f"{value['mean']:.1f} ± {value['std']:.1f}", (row, group)
        assert summary[names[row]]["seeds"] == [0, 1, 2]


POINTING_ROWS = {
    "chance": "chance",
    "CLIP (global)": "CLIP (global)",
    "Dense-CLIP": "Dense-CLIP",
    "untrained head": "untrained head",
    "FOR, older rule": "FOR, attention alone, cells from a half",
    "FOR": "FOR",
}


def test_region_tables_match_the_pointing_benchmark() -> None:
    summaries = [
        json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())["summary"]
        for name in ("pointing", "pointing_photos")
    ]
    lines = re.findall(r"^\| ([^|]+) \| (.+) \|$", (ROOT / "docs" / "regions.md").read_text(), re.M)
    rows = [(name, cells.replace("*", "")) for name, cells in lines if name in POINTING_ROWS]
    assert [name for name, _ in rows] == [*POINTING_ROWS, *POINTING_ROWS]
    for position, (name, cells) in enumerate(rows):
        measured = summaries[position // len(POINTING_ROWS)][POINTING_ROWS[name]]
        measures = ("peak", "centre", "correct", "overlap")
        assert cells == " | ".join(f"{measured['base'][m]:.1f} / {measured['novel'][m]:.1f}" for m in measures), name
