"""Work side by side: every item once, in order, whatever else runs."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, get_ident

import faiss
import pytest

from forclip.index import threads
from forclip.index.threads import one_core, parallel_map


def test_results_are_in_the_order_of_the_items() -> None:
    assert parallel_map(lambda n: n * n, iter(range(50))) == [n * n for n in range(50)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: parallel_map(lambda m: (n, m), range(9)), range(40)))
    assert found == [[(n, m) for m in range(9)] for n in range(40)]


def test_work_is_shared_out_while_cores_are_free_and_all_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    helper_came = Event()
    here = get_ident()

    def work(item: int) -> int:
        if get_ident() == here:
            assert helper_came.wait(20)
        else:
            helper_came.set()
        return item

    monkeypatch.setattr(threads, "cores", lambda: 2)
    for cached in (threads._free_cores, threads._pool):
        cached.cache_clear()
    try:
        for _ in range(3):
            helper_came.clear()
            assert parallel_map(work, [1, 2, 3]) == [1, 2, 3]
        assert threads._free_cores().acquire(blocking=False)  # another call has the only other core
        assert parallel_map(lambda n: get_ident(), range(4)) == [here] * 4
    finally:
        for cached in (threads._free_cores, threads._pool):
            cached.cache_clear()


def test_an_error_of_any_thread_is_raised() -> None:
    def work(item: int) -> int:
        if item == 1:
            raise ValueError("item 1")
        return item

    for _ in range(20):
        with pytest.raises(ValueError, match="item 1"):
            parallel_map(work, range(2))
    assert parallel_map(abs, [-1, -2]) == [1, 2]


def test_one_core_is_for_the_block_alone() -> None:
    before = faiss.omp_get_max_threads()
    with one_core():
        assert faiss.omp_get_max_threads() == 1
    assert faiss.omp_get_max_threads() == before
