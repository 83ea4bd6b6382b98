import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.report_sections import class_table


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
