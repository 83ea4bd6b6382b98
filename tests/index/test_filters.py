"""Filters against DuckDB, an independent evaluator of the same SQL."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forclip.index.filters import lance_filter
from forclip.index.image_index import Index
from forclip.index.store import Store
from tests.index.made import HEADER, files, names, some

NAN = float("nan")
DAYS = [day if day != 6 else None for day in range(1, 11)]
# Values that databases disagree about: missing ones, NaN of both signs, negative zero, quotes, wildcards, limits.
COLUMNS = {
    "Camera": pa.array(["front", "back", None, "it's", "FRONT", 'say "x"', "", "100%", "a\\b", "ä_Ö"]),
    "lens temp": pa.array([1.5, 2.5, None, NAN, -1.0, 0.0, -0.0, float("inf"), -NAN, 0.1]),
    "Straße": pa.array(["x", "y", None, "front", "z"] * 2),
    "frame": pa.array([1, 2, 3, 4, 5, None, 0, -3, 2**53 + 1, 100], pa.int64()),
    "gain": pa.array([1, 2, 3, 4, 5, None, 0, 200, 255, 7], pa.uint8()),
    "single": pa.array([0.1, 0.2, None, NAN, 1, 2, 3, -0.0, 0.5, 7], pa.float32()),
    "good": pa.array([True, False, None] * 3 + [True]),
    "taken": pa.array([d and datetime(2024, 1, d, 12 * (d % 2)) for d in DAYS], pa.timestamp("s")),
    "sent": pa.array([d and datetime(2024, 1, d, 12 * (d % 2), tzinfo=UTC) for d in DAYS], pa.timestamp("us", "UTC")),
    "day": pa.array([d and date(2024, 1, d) for d in DAYS]),
    "clock": pa.array([d and time(d, 30, 0, 1000 * d) for d in DAYS], pa.time64("us")),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Ten images with the columns above."""
    embeddings = some(names(10))
    index = Index.create(tmp_path_factory.mktemp("filters") / "s", HEADER)
    index.add(embeddings, files(embeddings.image_ids), COLUMNS)
    return index.store


@pytest.fixture(scope="module")
def expected(store: Store) -> Callable[[str], list[int]]:
    """Keys that DuckDB selects."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("PRAGMA disable_optimizer")  # DuckDB 2.0.1's loses images by `date_part('year', a) = year(b)`
    rows = store.table().to_table([c for c in store.table().schema.names if c not in ("vectors", "boxes")])
    connection.register("rows", rows)
    connection.execute("CREATE TABLE images AS SELECT * FROM rows")

    def select(where: str) -> list[int]:
        return sorted(key for (key,) in connection.execute(f"SELECT number FROM images WHERE {where}").fetchall())

    return select


# Random filters, as text: what a filter may be built of.


def one(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from(texts)


def build(pattern: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda chosen: pattern.format(*chosen))


def column(name: str) -> st.SearchStrategy[str]:
    unquoted = () if " " in name else (name, name.upper(), name.lower())
    return one(f'"{name}"', f"`{name}`", *(unquoted if name.isascii() else unquoted[:1]))


COMPARE = one("=", "<>", "!=", "<", ">", "<=", ">=", "is distinct from", "IS NOT DISTINCT FROM")
CAMERA, STREET = column("Camera"), column("Straße")
NUMBER_COLUMN = column("lens temp") | column("frame") | column("gain") | column("single")
TEXT_LITERAL = one("'front'", "'back'", "''", "'it''s'", "'say \"x\"'", "'a\\b'", "'100%'", "'ä_ö'", "'F'")
NUMBER = one("0", "1", "2", "-3", "007", "1000", "9007199254740993", "0.1", "2.5", "1.0", ".5", "-0.2", "1e0", "2.5e0")
WHEN = one("'2024-01-03'", "'2024-01-03 12:00:00'", "'2024-01-04T12:00'", "'2024-01-04 00:00:00.5'")
MOMENT = WHEN | one("timestamp '2024-01-05 00:00:00'", "date '2024-01-02'")
DAY = one("'2024-01-03'", "date '2024-01-04'", "timestamp '2024-01-04 00:00:00'", "timestamp '2024-01-04 12:00:00.001'")
TIMES = column("taken") | column("sent")
PATTERN = one("'f%'", "'%b'", "'100\\%'", "'_ront'", "'%'", "''", "'a\\b'", "'%''%'", "'ä%'", "'%\\%'", "'a_b'")
TEXT = st.recursive(
    CAMERA | STREET | TEXT_LITERAL,
    lambda text: st.one_of(
        build("{}({})", one("lower", "UPPER", "trim"), text),
        build("({} || {})", text, text),
        build("concat({}, {})", text, text),
        build("{}({}, {})", one("left", "right"), text, one("0", "1", "3")),
        build("{}({}, {})", one("coalesce", "nullif"), text, text),
    ),
    max_leaves=3,
)
VALUE = st.recursive(
    NUMBER_COLUMN | NUMBER,
    lambda number: st.one_of(
        build("({} {} {})", number, one("+", "-", "*", "/"), number),
        build("{} {} {}", number, one("+", "-", "*"), number),
        build("-{}", NUMBER_COLUMN),
        build("abs({})", number),
        build("({} {} 3)", column("frame") | column("gain"), one("%", "//")),
        build("length({})", TEXT),
        build("coalesce({}, {})", number, number),
        build("date_part('{}', {})", one("year", "day", "dow"), TIMES | column("day")),
        build("round({})", column("lens temp")),
        build("cast({} as double)", number),
        one("gain::int", "year(day)", "extract(month from sent)"),
    ),
    max_leaves=3,
)
SIMPLE = st.one_of(
    build("{} {} {}", TEXT, COMPARE, TEXT),
    build("{} {} {}", VALUE, COMPARE, VALUE),
    build("{} {} {}", TIMES, COMPARE, MOMENT),
    build("{} {} {}", column("day"), COMPARE, DAY),
    build("clock {} {}", COMPARE, one("'03:30:00'", "'04:30:00.004'", "'02:30'")),
    build("{} {} ({}, {})", VALUE, one("in", "not in"), NUMBER, NUMBER),
    build("{} {} ({})", TEXT, one("IN", "NOT IN"), TEXT_LITERAL),
    build("{} {} {} and {}", VALUE, one("between", "not between"), VALUE, VALUE),
    build("{} between {} and {}", TIMES, MOMENT, MOMENT),
    build("{} {} {}", TEXT, one("like", "NOT LIKE", "ilike"), PATTERN),
    build("{} like {} escape '!'", TEXT, one("'100!%'", "'ä!_%'", "'f%'", "'!!'")),
    build("{} {}", CAMERA | NUMBER_COLUMN | TIMES | column("clock"), one("is null", "IS NOT NULL")),
    build("{} {}", column("good"), one("", "is true", "is not true", "is false", "= true", "<> false")),
    build("{}({}, {})", one("starts_with", "ends_with", "contains"), TEXT, TEXT),
    build("isnan({})", column("single") | column("lens temp")),
    build("{} {} {}", column("good"), one("=", "<>"), one("(good)", "starts_with(Camera, 'f')", "false")),
    build("cast({} as date) = '2024-01-03'", TIMES),
    one("true", "1 = 1", "cast(frame as text) = '3'"),
)
FILTER = st.recursive(
    SIMPLE,
    lambda part: st.one_of(
        build("{} {} {}", part, one("and", "OR"), part),
        build("not {}", part),
        build("({})", part),
        build("({}) is {}", part, one("true", "not true", "false", "null", "not null")),
    ),
    max_leaves=5,
)
FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
MAY_FAIL = ("Out of Range", "Division by zero")  # where DuckDB has no answer


def check(store: Store, expected: Callable[[str], list[int]], where: str) -> None:
    """An accepted filter selects exactly the images that DuckDB selects."""
    keys = sorted(store.keys(where))
    try:
        assert keys == expected(where.replace("`", '"')), lance_filter(where, store.table().schema)
    except duckdb.Error as error:
        if not any(reason in str(error) for reason in MAY_FAIL):
            raise


@FUZZ
@given(where=FILTER)
def test_filters_select_what_they_say(store: Store, expected: Callable[[str], list[int]], where: str) -> None:
    check(store, expected, where)


PIECE = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|[\w.]+|<>|!=|<=|>=|\|\||//|[^\s\w]")
INTRUDER = one(
    *("and", "or", "not", "(", ")", ",", "=", "'", '"', "`", ";", "--", "/*", "*/", "limit 1", "; drop table images"),
    *(
        ") or (1=1",
        "is",
        "null",
        "true",
        "in",
        "between",
        "like",
        "escape",
        "as",
        "-",
        "+",
        "*",
        ".",
        "::",
        "[",
        "]",
        "x",
    ),
    *("select 1", "exists", "case when", "end", "interval", "date", "distinct", "all", "||", "&", "~", "!", "?", "$1"),
    *(
        "\\",
        "\n",
        "0x1",
        "order by 1",
        "union select 1",
        "where",
        "collate",
        "over",
        "{",
        "}",
        "@",
        "==",
        "if",
        "#",
        "%",
    ),
)


@FUZZ
@given(where=FILTER, data=st.data())
def test_a_mangled_filter_is_refused_or_means_what_it_says(
    store: Store, expected: Callable[[str], list[int]], where: str, data: st.DataObject
) -> None:
    """Cut off, doubled, with a piece dropped, doubled, swapped or added."""
    pieces = PIECE.findall(where)
    at, other = (data.draw(st.integers(0, len(pieces) - 1)) for _ in range(2))
    swapped = list(pieces)
    swapped[at], swapped[other] = pieces[other], pieces[at]
    cut = data.draw(st.integers(0, len(where)))
    mangled = data.draw(
        one(
            where[:cut],
            where[cut:],
            f"{where} {where}",
            " ".join(pieces[:at] + pieces[at + 1 :]),
            " ".join(pieces[: at + 1] + pieces[at:]),
            " ".join(swapped),
            " ".join([*pieces[:at], data.draw(INTRUDER), *pieces[at:]]),
        )
    )
    try:
        store.keys(mangled)
    except ValueError as error:
        message = str(error)
    else:
        check(store, expected, mangled)
        return
    assert message.startswith("can't select images by")


@pytest.mark.parametrize(
    ("where", "selected"),
    [
        ("\"Camera\" != 'front'", [1, 3, 4, 5, 6, 7, 8, 9]),
        ("`camera` = 'front'", [0]),
        ("CAMERA = 'front'", [0]),
        ("Straße = 'x'", [0, 5]),
        ('"lens temp" < 0', [4]),
        ("frame / 2 = 1.5", [2]),
        ("taken > '2024-01-08'", [8, 9]),
        ("sent >= '2024-01-10 02:00:00+02:00'", [9]),
        ("gain = 300", []),
        ("Camera LIKE 'a\\b'", [8]),
        (" OR ".join(f"frame = {k}" for k in range(2000)), [0, 1, 2, 3, 4, 6, 9]),
    ],
)
def test_by_hand(store: Store, where: str, selected: list[int]) -> None:
    keys = store.table().to_table(["number"])["number"].to_pylist()
    assert sorted(store.keys(where)) == [keys[k] for k in selected]


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("Camera = 'x' plus frame = 1", "plus"),
        ("Camera = 'x' limit 1", "limit"),
        ("date_part(interval 'year', taken) = 2024", "interval 'year'"),
        ("Camera = 'x'; DROP TABLE images", ";"),
        ("Camera = 'x') or (1=1", "bracket"),
        ("Camera = 'x' -- or", "-- or"),
        ("Camera = 'x' /* or */", "/* or */"),
        ("(Camera = 'x'", "bracket"),
        ("Camera = 'x", "quote"),
        ("", "empty"),
        ("Kamera = 'x'", "did you mean 'Camera'"),
        ('Camera = "front"', "'front'"),
        ("Camera = \N{LEFT SINGLE QUOTATION MARK}x\N{RIGHT SINGLE QUOTATION MARK}", "straight quotes"),
        ("nothing = 1", "Camera, lens temp"),
        ("number = 1", "no column 'number'"),
        ("boxes = 1", "no column 'boxes'"),
        ("Camera > 5", "write '5'"),
        ("frame = '3'", "write 3 without quotes"),
        ("good = 1", "good = true"),
        ("taken > 'yesterday'", "2024-01-31 14:00:00"),
        ("taken > '3.1.2024'", "2024-01-31 14:00:00"),
        ("day = '2024-02-30'", "2024-02-30"),
        ("taken > '2024-01-03 10:00+01:00'", "zone"),
        ("frame = NULL", "IS NULL"),
        ("frame IN (SELECT 1)", "SELECT 1"),
        ("count(frame) > 1", "COUNT(frame)"),
        ("frame", "not a condition"),
        ("frame = 1 = good", "frame = 1 can't be compared"),
        ("Camera = 'a' 'b'", "'b'"),
        ("frame BETWEEN 1 2", "AND"),
        ("concat(, Camera) = 'x'", "(,"),
        ("(" * 500 + "good" + ")" * 500, "nested"),
        ("frame = 1e999", "1e999"),
        ("Camera = '\ud800'", "Unicode"),
    ],
)
def test_a_filter_that_is_not_one_condition_is_refused(store: Store, where: str, named: str) -> None:
    with pytest.raises(ValueError, match="can't select images by") as error:
        store.keys(where)
    assert named in str(error.value)
    assert not {"vectors", "boxes"} & set(str(error.value).replace(",", "").split())


@pytest.mark.parametrize(
    ("where", "written"),
    [
        ("taken on > '2024-01-31'", "`taken on`"),
        ("n = 1 and select = 'x'", "`select`"),
        ("is night", "`is night`"),
        ("`taken on` > 'yesterday'", "write `taken on` > '2024-01-31'"),
        ("`is night` = 1", "write `is night` = true"),
    ],
)
def test_a_message_writes_columns_as_a_filter_needs_them(where: str, written: str) -> None:
    types = {
        "taken on": pa.date32(),
        "select": pa.string(),
        "is night": pa.bool_(),
        "n": pa.int64(),
        "left": pa.int64(),
    }
    with pytest.raises(ValueError, match="can't select images by") as error:
        lance_filter(where, pa.schema(types))
    assert written in str(error.value).split("images by")[1].replace(repr(where), "")
    with pytest.raises(ValueError, match="can't select images by") as plain:
        lance_filter("n plus n", pa.schema(types))
    assert "backticks" not in str(plain.value)


def test_names_that_differ_in_case_only_need_to_be_exact() -> None:
    schema = pa.schema({"Camera": pa.string(), "camera": pa.string()})
    assert "`camera`" in lance_filter("camera = 'x'", schema)
    with pytest.raises(ValueError, match="'Camera' or 'camera'"):
        lance_filter("CAMERA = 'x'", schema)


def test_a_refused_filter_deletes_nothing(tmp_path: Path) -> None:
    embeddings = some(names(3))
    index = Index.create(tmp_path / "s", HEADER)
    index.add(embeddings, files(embeddings.image_ids), {"Camera": ["front", "back", "back"]})
    for where in ("Camera = 'x') or (1=1", "Camera = 'front' plus id = 'x'", 'Camera != "front"'):
        with pytest.raises(ValueError, match="can't select images by"):
            index.delete(where)
    assert len(index) == 3
    assert index.delete("\"Camera\" != 'front'") == 2
    assert index.store.ids() == {"image 00000"}


def test_every_search_applies_the_same_filter(store: Store) -> None:
    index = Index(store.folder)
    query = np.zeros(HEADER.dim, np.float32)
    query[0] = 1
    where = "\"Camera\" = 'front' OR `Straße` = 'x'"
    selected = {"image 00000", "image 00005"}
    assert index.count(where) == len(index.scores(query, where=where)) == 2
    assert {r.image_id for r in index.search(query, 10, where)} == selected
    assert {r.image_id for r in index.search(query, 10, where, exact=True)} == selected
    assert {r.image_id for r in index.search_picture(query[None], 10, where)} == selected
    assert {r.image_id for r in index.search_among(names(10), query, where=where)} == selected
