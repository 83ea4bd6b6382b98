import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from forclip.evaluation.charts import Curve, gain_chart, ladder_chart, line_chart, nice_ticks
from forclip.evaluation.methods import best_training_free, display_name, method_note, passes
from forclip.evaluation.metrics_file import MethodRun, Metrics, summarise_runs
from forclip.evaluation.protocol import evaluate_scores
from forclip.evaluation.report import ReportPage, class_table, summary, write_report
from forclip.evaluation.result_grid import GridHit, GridRow, QueryGrid
from forclip.types import ClassSplit

HOSTILE = "<script>alert('x')</script>\"&"


def values(base: float | None, novel: float | None, spread: float = 0.0) -> dict[str, float | None]:
    return {
        "base": base, "novel": novel, "all": base, "base_std": spread, "novel_std": spread, "all_std": spread,
        "vectors_per_image": 10.0, "ms_per_image": 4.25,
    }  # fmt: skip


def sample_metrics() -> Metrics:
    methods = {"global": values(20.0, 19.0), "cluster_10": values(25.0, 27.9), "for": values(50.0, 48.1, 0.6)}
    return {"dataset": "toy", "metric": "map_at_50/min(50,R)", "seeds": [0, 1], "methods": methods}


@pytest.fixture
def page(tmp_path: Path) -> ReportPage:
    good, other, bad = (tmp_path / name for name in ("good.png", "other.png", "bad.png"))
    Image.new("RGB", (400, 100), "red").save(good)
    Image.new("L", (30, 60)).save(other)
    bad.write_bytes(b"no picture")
    box = (0.25, 0.0, 0.5, 1.0)
    hits = (
        GridHit(good, "good", 0.5, True, box),
        GridHit(other, "other", 0.4, False),
        GridHit(bad, "bad", 0.3, False, box),
        GridHit(tmp_path / "gone.png", "gone", 0.2, True),
    )
    grid = QueryGrid("cup", True, 3, (GridRow("global", 12.5, hits), GridRow("for", None, hits[:1])))
    curve = Curve("loss", (0.0, 1.0, 2.0), (3.0, 2.0, 1.5), "step")
    return ReportPage("A run", "toy", sample_metrics(), (curve,), (grid, grid), {"seed": "0"})


def written(page: ReportPage, folder: Path) -> str:
    write_report(folder / "report.html", page)
    return (folder / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Every tag with its attributes, and the elements left open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_else(page: ReportPage, tmp_path: Path) -> None:
    html = written(page, tmp_path)
    parsed = Tags(html)
    assert not parsed.open
    links = [value or "" for _, attrs in parsed.tags for key, value in attrs.items() if key in ("href", "src")]
    assert links
    assert all(link.startswith(("#", "data:image/webp;base64,")) for link in links)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert not re.search(r"https?://|@import|url\(", html)


def test_everything_is_escaped(page: ReportPage, tmp_path: Path) -> None:
    metrics = sample_metrics()
    metrics["methods"][HOSTILE] = values(1.0, 1.0)
    metrics["left_out"] = {"classes": [{"name": HOSTILE, "reason": HOSTILE}], "groups": []}
    metrics["methods"][HOSTILE]["other_denominators"] = {HOSTILE: values(1.0, 1.0)}
    metrics["methods"][HOSTILE]["curves"] = {
        "k": [1],
        "recall": {"base": [1.0], "novel": None},
        "precision": {"base": [1.0], "novel": None},
    }
    metrics["classes"] = {
        HOSTILE: {
            "group": "base",
            "methods": {m: {"average_precision": 1.0, "num_relevant": 2.0} for m in metrics["methods"]},
        }
    }
    row = page.queries[0].rows[0]
    hits = tuple(replace(hit, image_id=HOSTILE) for hit in row.hits)
    missing = GridHit(tmp_path / "<script>x.png", HOSTILE, 0.1, True)
    grid = QueryGrid(HOSTILE, False, 1, (GridRow(HOSTILE, 1.0, (*hits, missing)),))
    curve = Curve(HOSTILE, (0.0, 1.0), (0.0, 1.0), HOSTILE)
    html = written(ReportPage(HOSTILE, HOSTILE, metrics, (curve,), (grid,), {HOSTILE: HOSTILE}), tmp_path)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 10
    assert not Tags(html).open


@pytest.fixture
def measured_page(page: ReportPage) -> ReportPage:
    """Of metrics as summarise_runs makes them, federated, with extremes."""
    rng = np.random.default_rng(0)
    names = tuple(f"class {k}" for k in range(12))
    labels = rng.random((70, 12)) < 0.2
    verified = labels | (rng.random((70, 12)) < 0.4)
    runs = [
        MethodRun(
            method,
            0,
            evaluate_scores(scores, labels, names, ClassSplit(names[:7], names[7:]), verified=verified),
            1,
            2.0,
        )
        for method, scores in (("global", rng.random((70, 12))), ("for", rng.random((70, 12)) + labels))
    ]
    unchecked = replace(page.queries[0].rows[0].hits[0], relevant=None)
    extreme = QueryGrid("cup", True, 3, (GridRow("for", 5.0, (unchecked,)),))
    return replace(page, metrics=summarise_runs("toy", runs), best=(extreme,), worst=(extreme, extreme))


def test_the_page_has_intervals_gains_and_what_was_searched(measured_page: ReportPage, tmp_path: Path) -> None:
    html = written(measured_page, tmp_path)
    parsed = Tags(html)
    assert not parsed.open
    assert "script" not in {tag for tag, _ in parsed.tags}
    methods = measured_page.metrics["methods"]
    low, high = methods["for"]["intervals"]["novel"]
    assert f"<small>({low:.1f}\N{EN DASH}{high:.1f})</small>" in html
    assert "70 images searched" in html
    assert "each class ranked over the images verified for it" in html
    assert "map_at_50/min(50,R), over all images" in html
    for title in ("recall, base classes", "precision, novel classes", "ranks best", "ranks worst"):
        assert title in html
    gain = methods["for"]["base"] - methods["global"]["base"]
    assert f"FOR is above CLIP (global) on 7 of 7 base classes (mean gain {gain:+.1f}, 95 % interval +" in html
    assert "and on 5 of 5 novel classes (mean gain +" in html
    assert html.count('<li class="unverified">') == 3
    assert 'aria-label="good: unverified"' in html


def test_every_heading_sorts_every_row_without_a_script(measured_page: ReportPage, tmp_path: Path) -> None:
    html = written(measured_page, tmp_path)
    parsed = Tags(html)
    choices = [attrs for tag, attrs in parsed.tags if tag == "input"]
    headings = [attrs for tag, attrs in parsed.tags if tag == "label"]
    assert [c["id"] for c in choices] == [h["for"] for h in headings] == [f"by{k}" for k in range(6)]
    assert [c["id"] for c in choices if "checked" in c] == ["by5"]
    rows = [attrs["style"] or "" for tag, attrs in parsed.tags if (attrs.get("class") or "").startswith("row-of")]
    assert len(rows) == 12
    for k in range(6):
        places = [int(re.findall(rf"--p{k}:(\d+);", row)[0]) for row in rows]
        assert sorted(places) == list(range(12))
        assert f"#by{k}:checked ~ .tall .row-of {{ order: var(--p{k}); }}" in html


def test_a_picture_used_many_times_is_stored_once(page: ReportPage, tmp_path: Path) -> None:
    html = written(page, tmp_path)
    assert html.count("data:image/webp") == 2
    assert html.count('href="#t0"') == 4


def test_a_picture_that_cannot_be_read_becomes_a_tile(page: ReportPage, tmp_path: Path) -> None:
    html = written(page, tmp_path)
    assert html.count("not readable") == 4
    assert "not an image that Pillow can read" in html
    assert "no such file" in html


def test_right_wrong_and_region_show_without_colour(page: ReportPage, tmp_path: Path) -> None:
    html = written(page, tmp_path)
    assert 'aria-label="good: right"' in html
    assert 'aria-label="other: wrong"' in html
    assert html.count('class="place"') == 4  # each picture that can be read and has a box


def test_names_that_are_not_text_do_not_stop_the_page(page: ReportPage, tmp_path: Path) -> None:
    assert "latin-?.jpg" in written(replace(page, title="latin-\udce9.jpg"), tmp_path)


def test_a_page_without_queries_curves_or_novel_classes(tmp_path: Path) -> None:
    metrics = sample_metrics()
    metrics["methods"] = {"global": {**values(20.0, None), "ms_per_image": None}}
    html = written(ReportPage("A run", "toy", metrics, (), (), {}), tmp_path)
    assert 'aria-label="base 20.0, novel no value"' in html
    assert "20.0</text>" in html
    assert "no novel class</text>" in html
    assert "Training" not in html
    assert "What each method finds" not in html


def test_the_summary_states_the_gains() -> None:
    metrics = sample_metrics()
    assert summary(metrics).startswith(
        "FOR finds never-labelled classes at 48.1 mAP@50 (± 0.6 over 2 seeds), 20.2 above the best training-free "
        "baseline (Cluster-CLIP, k = 10, 27.9). On the classes whose labels it was finetuned with it reaches 50.0, "
        "25.0 above the best"
    )
    metrics["methods"]["for"] = values(25.01, 20.0)
    assert "at 20.0 mAP@50, 7.9 below the best" in summary(metrics)
    assert "it reaches 25.0, level with the best" in summary(metrics)
    del metrics["methods"]["for"]
    metrics["left_out"] = {"classes": [], "groups": [{"name": "all", "reason": "none"}]}
    assert summary(metrics) == (
        "Cluster-CLIP, k = 10 is the best training-free method on base classes, at 25.0 mAP@50. "
        "Cluster-CLIP, k = 10 is the best training-free method on novel classes, at 27.9 mAP@50. "
        "There is no value for all classes: none."
    )


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ("global", "CLIP (global)"),
        ("cluster_25", "Cluster-CLIP, k = 25"),
        ("tiles_3x3", "Tiles of CLIP, 3 x 3"),
        ("for", "FOR (finetuned)"),
        ("mine", "mine"),
        ("tiles_of_mine", "tiles_of_mine"),
    ],
)
def test_display_names(method: str, shown: str) -> None:
    assert display_name(method) == shown


def test_tiles_are_a_training_free_baseline_with_its_passes() -> None:
    metrics = sample_metrics()
    metrics["methods"]["tiles_3x3"] = {**values(60.0, 40.0), "passes": 9}
    metrics["methods"]["for"]["passes"] = 10
    assert best_training_free(metrics, "novel") == "tiles_3x3"
    assert "8.1 above the best training-free baseline (Tiles of CLIP, 3 x 3, 40.0)" in summary(metrics)
    assert "takes 10 passes of the image tower" in summary(metrics)
    assert passes(metrics, "global") == 1  # a file of an older version
    metrics["methods"]["tiles_of_mine"] = values(99.0, 99.0)
    assert best_training_free(metrics, "novel") == "tiles_3x3"
    assert method_note("tiles_3x3") == method_note("tiles_2x2") != ""


def test_curves_of_any_length_and_value_can_be_drawn() -> None:
    many = tuple(float(x) for x in range(10_000))
    noise = tuple(np.random.default_rng(0).random(10_000).tolist())
    assert len(line_chart(Curve("loss", many, noise, "step"))) < 20_000
    assert "No finite value" in line_chart(Curve("loss", (0.0,), (float("nan"),), "step"))
    for ys in ((2.0,), (2.0, 2.0), (0.0, float("inf")), (1e-9, 2e-9), (-3.0, 4e8)):
        drawn = line_chart(Curve("loss", many[: len(ys)], ys, "step"))
        assert "nan" not in drawn
        assert "inf" not in drawn
    with pytest.raises(ValueError, match="'loss' has 1 x and 0 y values"):
        Curve("loss", (0.0,), (), "step")


def test_ticks_enclose_the_values() -> None:
    assert nice_ticks(0.4, 2.4) == [0, 1, 2, 3]
    assert nice_ticks(5, 5)[0] < 5 < nice_ticks(5, 5)[-1]


def test_a_ladder_names_its_lines_and_their_last_values() -> None:
    drawn = ladder_chart("recall", (1, 10, 100), [("mine", "line-0", (0.0, 50.0, 100.0))])
    assert "recall by rank: mine 100.0 at 100" in drawn
    assert "<title>mine</title>" in drawn
    assert all(f">{rank}</text>" in drawn for rank in (1, 10, 100))
    assert "nan" not in ladder_chart("recall", (1,), [("mine", "line-0", (0.0,))])


def test_gains_have_a_bar_per_class_the_largest_first() -> None:
    drawn = gain_chart([("a", "base", -5.0), ("b", "novel", 10.0)])
    assert re.findall(r"<title>(.*?)</title>", drawn) == ["b: +10.0", "a: -5.0"]
    assert "nan" not in gain_chart([("a", "base", 0.0)])


def metrics_with(values: dict[str, dict[str, float]]) -> Metrics:
    """values: by class, by method."""
    methods = list(dict.fromkeys(method for of_class in values.values() for method in of_class))
    classes = {
        name: {
            "group": "novel" if k % 2 else "base",
            "methods": {m: {"average_precision": value, "num_relevant": 3.0 + k} for m, value in of_class.items()},
        }
        for k, (name, of_class) in enumerate(values.items())
    }
    means = {m: float(np.mean([v[m] for v in values.values() if m in v])) for m in methods}
    return {"methods": {m: {"base": v, "novel": v, "all": v} for m, v in means.items()}, "classes": classes}


SAMPLE = metrics_with(
    {"cup": {"global": 10, "dense": 30, "for": 40}, "ant": {"global": 50, "for": 45}, "bee": {"dense": 20, "for": 60}}
)


def test_every_column_knows_the_order_of_its_rows() -> None:
    table = class_table(SAMPLE)
    assert table is not None
    assert table.columns == ("class", "group", "R", "CLIP (global)", "Dense-CLIP", "FOR (finetuned)", "gain")
    assert table.cells[0] == ("cup", "base", "3", "10.0", "30.0", "40.0", "+30.0")
    names = [row.name for row in table.rows]

    def order(column: int) -> list[str]:
        return sorted(names, key=lambda name: table.places[names.index(name)][column])

    assert order(0) == ["ant", "bee", "cup"]
    assert order(1) == ["bee", "cup", "ant"]
    assert order(2) == ["bee", "ant", "cup"]
    assert order(3) == ["ant", "cup", "bee"]  # bee has no value there
    assert order(5) == ["bee", "ant", "cup"]


def test_the_gain_is_over_one_baseline_and_missing_where_that_has_no_value() -> None:
    table = class_table(SAMPLE)
    assert table is not None
    assert table.baseline == "CLIP (global)"
    assert [row.gain for row in table.rows] == [30, -5, None]
    assert table.cells[2][-1] == "\N{EN DASH}"
    assert table.columns[table.sorted_by] == "gain"


def test_without_for_there_is_no_gain_and_without_classes_no_table() -> None:
    table = class_table(metrics_with({"cup": {"global": 10}}))
    assert table is not None
    assert (table.baseline, table.columns, table.sorted_by) == (None, ("class", "group", "R", "CLIP (global)"), 0)
    assert class_table({"methods": {}, "classes": {}}) is None


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_places_are_a_permutation_that_falls(values: list[int]) -> None:
    table = class_table(metrics_with({f"{k:02d}": {"global": value} for k, value in enumerate(values)}))
    assert table is not None
    places = [row[3] for row in table.places]
    assert sorted(places) == list(range(len(values)))
    in_order = [values[row] for row in np.argsort(places)]
    assert in_order == sorted(values, reverse=True)


def test_a_class_that_seeds_put_into_both_groups_is_in_neither() -> None:
    metrics = metrics_with({"cup": {"global": 10, "for": 40}, "ant": {"global": 50, "for": 45}})
    metrics["classes"]["cup"]["by_group"] = {"base": {"for": 30}, "novel": {"for": 50}}
    table = class_table(metrics)
    assert table is not None
    assert [row.group for row in table.rows] == ["both", "novel"]
