"""Which segments are rewritten, and how an index is chosen for one."""

from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from forclip.index.approximate_search import search_approximately
from forclip.index.exact_search import search_exactly
from forclip.index.image_index import Index
from forclip.index.index_kinds import CODES, Codes, bytes_per_vector, codes_of, lists_kind, scan_kind
from forclip.index.optimize import TARGET_RECALL, build_for_size, build_index, plan_merge
from forclip.index.segment import Segment
from forclip.index.segment_folder import SegmentFolder
from forclip.index.table import StoredVectors, read_vectors, take_rows
from forclip.types import ImageEmbeddings
from tests.index.made import DIM, HEADER, files, names, some, unit


def test_small_segments_join_what_is_added_and_large_ones_stay() -> None:
    assert plan_merge(100, [1000, 150, 30], [0, 0, 0]) == [2, 1]
    assert plan_merge(0, [1000, 150, 30], [0, 0, 0]) == []
    assert plan_merge(0, [1000, 150], [0, 100]) == [1]  # mostly dead
    assert plan_merge(600, [1000], [0]) == [0]
    assert plan_merge(400, [1000], [0]) == []


def test_a_vector_is_rewritten_a_logarithmic_number_of_times() -> None:
    live: list[int] = []
    written = 0
    for _ in range(1000):
        chosen = plan_merge(1, live, [0] * len(live))
        together = 1 + sum(live[p] for p in chosen)
        live = [n for p, n in enumerate(live) if p not in chosen] + [together]
        written += together
    assert sum(live) == 1000
    assert len(live) <= 10
    assert written <= 1000 * 12


def test_the_kind_of_index_follows_from_the_vectors(clustered: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    """None for few; lists where few of them suffice; compressed vectors alone where most would be searched."""
    assert (scan_kind(512), scan_kind(33)) == ("PQ256x4fs", "PQ33x4fs")
    everywhere = unit(np.random.default_rng(5), 40, DIM)
    at_home = clustered.decode(slice(0, 40)).astype(np.float32)
    assert build_for_size(clustered, everywhere) is None
    monkeypatch.setattr("forclip.index.optimize.MIN_INDEXED_VECTORS", 1000)
    monkeypatch.setattr("forclip.index.optimize._MAX_PROBE_SHARE", 1)
    in_lists = build_for_size(clustered, at_home)
    assert in_lists is not None
    assert in_lists.settings.kind == "IVF256(SQfp16),SQ8"  # 2 ** 8 is the last below 4 times the root of 7,500 vectors
    monkeypatch.setattr("forclip.index.optimize._MAX_READ_RATIO", 0.1)
    finer = build_for_size(clustered, everywhere)
    assert finer is not None
    assert finer.settings.kind == "IVF1024(SQfp16),SQ8", "where more is read of the lists than of their centres"
    monkeypatch.setattr("forclip.index.optimize._MAX_FINER_LISTS", 256)
    no_finer = build_for_size(clustered, everywhere)
    assert no_finer is not None
    assert no_finer.settings.kind == "IVF256(SQfp16),SQ8", "k-means would take too long"
    monkeypatch.setattr("forclip.index.optimize._MAX_PROBE_SHARE", 1000)
    alone = build_for_size(clustered, everywhere)
    assert alone is not None
    assert (alone.settings.kind, alone.settings.nprobe) == ("PQ8x4fs", 0)


@pytest.mark.parametrize("codes", CODES)
def test_codes_of_each_precision_find_the_best_images_and_score_them_exactly(codes: Codes, clustered: Segment) -> None:
    kind = lists_kind(32, DIM, codes)
    assert codes_of(kind) == codes
    queries = clustered.decode(slice(0, 40)).astype(np.float32)
    index = build_index(clustered, kind, queries)
    (shard,) = index.shards
    assert faiss.extract_index_ivf(shard).code_size + 8 == bytes_per_vector(codes, DIM)
    assert index.settings.recall >= TARGET_RECALL
    for query, found in zip(queries, search_approximately(clustered, index, queries, 5), strict=True):
        exact = search_exactly(clustered, query, 5)
        best = dict(zip(exact.images.tolist(), exact.scores.tolist(), strict=True))
        mine = dict(zip(found.images.tolist(), found.scores.tolist(), strict=True))
        assert all(mine[image] == score for image, score in best.items() if image in mine)


def test_later_segments_get_the_precision_of_the_largest_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forclip.index.optimize.MIN_INDEXED_VECTORS", 300)
    monkeypatch.setattr("forclip.index.optimize.MIN_SEGMENT_VECTORS", 300)
    index = Index.create(tmp_path / "s", HEADER)
    ids = names(900)
    index.add(some(ids, seed=1), files(ids))
    index.optimize()
    assert [codes_of(part["index"]) for part in index.info()["parts"]] == ["sq8"]
    index.optimize("rabitq1")
    more = names(200, "more")
    index.add(some(more, seed=2), files(more))
    index.optimize()
    assert [codes_of(part["index"]) for part in index.info()["parts"]] == ["rabitq1"] * 2
    assert index.verify() == []


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> Segment:
    """3,000 images of up to four vectors round 40 centres."""
    rng = np.random.default_rng(0)
    given = some(names(3000), seed=1)
    centres = unit(rng, 40, DIM)
    vectors = centres[rng.integers(0, 40, len(given.vectors))] + 0.6 * given.vectors
    near = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = HEADER.encode(near)
    images = pa.table({"id": list(given.image_ids), "uri": list(given.image_ids)})
    boxes = np.zeros((len(codes), 4), np.float16)
    block = StoredVectors(np.arange(3000), codes, given.offsets, boxes, images)
    segments = SegmentFolder(tmp_path_factory.mktemp("segments"), HEADER)
    return segments.open(segments.write([block])).segment


@pytest.mark.parametrize("kind", ["PQ8x4fs", "IVF32,PQ8x4fs", "IVF32,SQ8", "IVF32,Flat", "PCA12,IVF32,SQ8", "RaBitQ"])
def test_settings_reach_the_recall_they_report(clustered: Segment, kind: str) -> None:
    queries = unit(np.random.default_rng(5), 40, DIM)
    ann = build_index(clustered, kind, queries)
    found = search_approximately(clustered, ann, queries, 50)
    exact = [search_exactly(clustered, q, 50) for q in queries]
    shares = []
    for f, e in zip(found, exact, strict=True):
        best = set(e.images[np.argsort(-e.scores)[:50]].tolist())
        shares.append(len(best & set(f.images[np.argsort(-f.scores)[:50]].tolist())) / 50)
        exactly = dict(zip(e.images.tolist(), e.scores.tolist(), strict=True))
        approximately = dict(zip(f.images.tolist(), f.scores.tolist(), strict=True))
        assert all(approximately[i] == exactly[i] for i in approximately.keys() & exactly.keys())
    assert np.mean(shares) >= ann.settings.recall - 1e-9
    assert ann.settings.recall >= TARGET_RECALL or ann.settings.compared == 16
    assert ann.settings.queries == 40


def test_few_lists_are_searched_where_few_suffice(clustered: Segment) -> None:
    """Queries close to the centres need few lists; the cheapest setting is the one that is kept."""
    ann = build_index(clustered, "IVF32,Flat", clustered.decode(slice(0, 40)).astype(np.float32))
    assert 0 < ann.settings.nprobe < 32


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_filtered_search_finds_as_many_as_are_allowed(clustered: Segment, share: float) -> None:
    queries = unit(np.random.default_rng(5), 10, DIM)
    ann = build_index(clustered, "IVF32,SQ8", queries)
    allowed = np.random.default_rng(0).random(3000) < share
    for query in queries:
        (found,) = search_approximately(clustered, ann, query[None], 60, allowed)
        assert len(found.images) >= 60
        assert allowed[found.images].all()


def test_an_index_is_built_kept_and_replaced(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    given = some(names(500))
    index.add(given, files(given.image_ids))

    def kinds() -> list[str]:
        return [p.index.settings.kind if p.index else "none" for p in Index(tmp_path / "s").view().parts]

    other_process = Index(tmp_path / "s")
    query = unit(np.random.default_rng(0), DIM)
    expected = other_process.search(query)
    index.optimize(kind="IVF2,SQ8")
    assert kinds() == ["IVF2,SQ8"]
    assert [p.index.settings.kind for p in other_process.view().parts if p.index] == ["IVF2,SQ8"]
    index.optimize()  # without a kind, the existing index stays
    assert kinds() == ["IVF2,SQ8"]
    index.optimize(kind="SQ8")
    assert kinds() == ["SQ8"]
    index.optimize(kind="none")
    assert kinds() == ["none"]
    assert other_process.search(query) == expected
    assert len(list((tmp_path / "s" / "search").glob("*/segment.json"))) == 1


def test_optimizing_waits_for_nobody(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    with index.segments.changing(), pytest.raises(ValueError, match="another process is optimizing"):
        Index(tmp_path / "s").optimize()


@pytest.mark.parametrize("share", [1, 2, 7])
def test_chosen_or_all_rows_read_the_same(share: int, tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    for part in range(3):
        given = some(names(50, f"{part}"), seed=part)
        index.add(given, files(given.image_ids))
    table = index.store.table()
    every = {n: i for p in read_vectors(table, DIM) for n, i in zip(p.keys, p.images["id"].to_pylist(), strict=True)}
    addresses = table.scanner([], with_row_address=True).to_table()["_rowaddr"].to_numpy()
    wanted = np.random.default_rng(0).permutation(addresses)[::share]
    chosen = take_rows(table, wanted, ["number"])["number"].to_numpy()
    parts = list(read_vectors(table, DIM, wanted))
    some_of = {n: i for p in parts for n, i in zip(p.keys, p.images["id"].to_pylist(), strict=True)}
    assert some_of == {n: every[n] for n in chosen.tolist()}


def test_embeddings_without_boxes_are_of_the_whole_image(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    given = some(["a"])
    index.add(ImageEmbeddings(given.vectors, given.offsets, given.image_ids), files(["a"]))
    assert index.search(given.vectors[0])[0].box == (0, 0, 1, 1)
