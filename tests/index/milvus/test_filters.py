"""Filters of published stores: what is translated selects what DuckDB selects; what can't be is refused by name."""

from datetime import UTC, date, datetime

import duckdb
import pyarrow as pa
import pytest

from forclip.index.image_index import Index
from forclip.index.milvus.create import PublishOptions
from forclip.index.milvus.index import MilvusIndex
from forclip.index.milvus.publish import publish
from tests.index.made import HEADER, files, names, some
from tests.milvus_server import new_name

DAYS = [day if day != 6 else None for day in range(1, 11)]
COLUMNS = {
    "Camera": pa.array(["front", "back", None, "it's", "FRONT", 'say "x"', "", "100%", "a_b", "ä_Ö"]),
    "lens temp": pa.array([1.5, 2.5, None, -1.0, 0.0, float("inf"), float("-inf"), 0.1, 1e300, 3.0]),
    "frame": pa.array([1, 2, 3, 4, 5, None, 0, -3, 2**53 + 1, 100], pa.int64()),
    "frame2": pa.array([1, 3, 2, 4, None, 6, 0, -4, 2**53, 100], pa.int64()),
    "good": pa.array([True, False, None] * 3 + [True]),
    "taken": pa.array([d and datetime(2024, 1, d, 12 * (d % 2)) for d in DAYS], pa.timestamp("us")),
    "sent": pa.array([d and datetime(2024, 1, d, 12 * (d % 2), tzinfo=UTC) for d in DAYS], pa.timestamp("us", "UTC")),
    "day": pa.array([d and date(2024, 1, d) for d in DAYS]),
}
TRANSLATED = (
    "Camera = 'front'",
    "Camera <> 'front'",
    "NOT (Camera = 'front' OR frame > 3)",
    "Camera IN ('front', 'it''s', 'say \"x\"')",
    "Camera NOT IN ('front', '')",
    "Camera IS NULL OR Camera = ''",
    "Camera IS NOT NULL AND NOT good",
    "Camera LIKE 'f%'",
    "Camera NOT LIKE '%n%'",
    "Camera LIKE '%!%' ESCAPE '!'",
    "Camera LIKE 'a!_%' ESCAPE '!'",
    "Camera LIKE 'front'",
    "Camera LIKE '%'",
    "starts_with(Camera, 'a') OR contains(Camera, '%')",
    "NOT contains(Camera, '_')",
    "Camera >= 'b' AND Camera < 'g'",
    "good",
    "NOT good",
    "good = false",
    "(frame > 2) IS TRUE",
    "(frame > 2) IS NOT TRUE",
    "(frame > 2) IS FALSE",
    "frame = 9007199254740993",
    "frame > 1.5 AND frame <= 4.5",
    "frame = 2.5 OR frame <> 3.5",
    "frame < 1e30 AND frame > -100000000000000000000",
    "frame BETWEEN -3 AND 2",
    "3 > frame",
    "frame = frame2",
    "frame < frame2 OR frame2 IS NULL",
    "frame IS DISTINCT FROM 3",
    "frame IS NOT DISTINCT FROM 3",
    '"lens temp" > 1',
    '"lens temp" = 0.1 OR "lens temp" <= -1',
    '"lens temp" > 1e200',
    "taken >= '2024-01-03 12:00:00'",
    "taken = '2024-01-04'",
    "taken < DATE '2024-01-05'",
    "sent > '2024-01-02T13:00:00+01:00'",
    "day = '2024-01-04' OR day > '2024-01-08'",
    "day >= TIMESTAMP '2024-01-03 12:00:00'",
    "width > 639 AND height = 480",
    "id LIKE 'image 0000%' AND id > 'image 00003'",
    "added > '2020-01-01'",
)
REFUSED = (
    "lower(Camera) = 'front'",
    "frame + 1 = 2",
    "frame % 2 = 0",
    "Camera ILIKE 'F%'",
    "Camera LIKE 'fr_nt'",
    "date_part('year', taken) = 2024",
    "regexp_like(Camera, 'f')",
    'frame = "lens temp"',
    "uri = '/pictures/x'",
    "content_hash = ''",
    "Camera LIKE 'a\\b%'",
    "1 = 1",
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, milvus_server: str) -> tuple[Index, MilvusIndex]:
    """Ten images with the columns above."""
    embeddings = some(names(10))
    index = Index.create(tmp_path_factory.mktemp("filters") / "s", HEADER)
    index.add(embeddings, files(embeddings.image_ids), COLUMNS)
    place = f"{milvus_server}/{new_name()}"
    publish(index.store, place, PublishOptions(), lambda merge, most: None)
    return index, MilvusIndex(place)


@pytest.mark.parametrize("where", TRANSLATED)
def test_a_translated_filter_selects_what_duckdb_selects(where: str, published: tuple[Index, MilvusIndex]) -> None:
    local, searched = published
    rows = local.store.table().to_table([c for c in local.store.table().schema.names if c not in ("vectors", "boxes")])
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.register("images", rows)
    expected = {i for (i,) in connection.execute(f"SELECT id FROM images WHERE {where}").fetchall()}
    query = some(names(1)).vectors[0]
    assert {r.image_id for r in searched.search(query, 20, where)} == expected
    assert searched.count(where) == len(expected) == local.count(where)


@pytest.mark.parametrize("where", REFUSED)
def test_what_milvus_can_not_do_is_refused(where: str, published: tuple[Index, MilvusIndex]) -> None:
    with pytest.raises(ValueError, match=r"can't select images by .*(Milvus|compare a column)"):
        published[1].count(where)


def test_values_come_back_as_they_are_in_the_store(published: tuple[Index, MilvusIndex]) -> None:
    local, searched = published
    keys = list(local.keys_of_ids(names(10)).values())
    ours, theirs = searched.row_reader().read(keys), local.row_reader().read(keys)
    for key in keys:
        assert {n: ours[key][n] for n in COLUMNS} == {n: theirs[key][n] for n in COLUMNS}


def test_bad_sql_is_refused_as_in_a_store(published: tuple[Index, MilvusIndex]) -> None:
    for where in ("frame >", "frame > 1; DELETE", "colour = 'red'", "Camera > 3"):
        messages = []
        for index in published:
            with pytest.raises(ValueError, match="can't select images") as error:
                index.count(where)
            messages.append(str(error.value))
        assert messages[0].partition("; the columns are")[0] == messages[1].partition("; the columns are")[0]
