"""Brings what is derived for speed in step with a store: segments of what was added, an index for large ones."""

import numpy as np

from forclip.index.ann_building import SCAN_BELOW, build_ann, build_for_size
from forclip.index.derived import KEEP_BELOW, Derived, DerivedFolder, merge_plan, segments_of
from forclip.index.store import Store
from forclip.index.view import Part, Views
from forclip.types import Floats

NO_INDEX = "none"


def optimize(
    store: Store, derived: DerivedFolder, views: Views, kind: str | None = None, queries: Floats | None = None
) -> None:
    """Can be killed at any time: searches see what was there before, or what is there after.

    kind: a FAISS factory string, `none`, or None: chosen by size. queries: unit [Q, dim] such as will be asked, to
    measure recall with. Raises ValueError for a kind that can't be built, or where another process is at it.
    """
    with derived.changing():
        write_segments(store, derived, views, smallest=KEEP_BELOW if kind in (None, NO_INDEX) else 1)
        _drop_dead(derived, views)
        for part in views.newest().parts:
            if not part.in_memory:
                _index(derived, part, kind, queries)


def write_segments(store: Store, derived: DerivedFolder, views: Views, smallest: int) -> None:
    """Segments of what is in memory, and of what is better written anew together with it.

    smallest: so many vectors in memory are worth a segment. To be called by one process at a time.
    """
    parts = views.newest().parts
    on_disk, tail = [p for p in parts if not p.in_memory], [p for p in parts if p.in_memory]
    size = sum(p.num_vectors for p in tail)
    live = [p.num_vectors for p in on_disk]
    dead = [p.segment.num_vectors - n for p, n in zip(on_disk, live, strict=True)]
    chosen = [on_disk[place] for place in merge_plan(size if size >= smallest else 0, live, dead)]
    if size >= smallest or chosen:
        chosen += tail
    keys = np.concatenate([np.empty(0, np.int64), *(p.segment.keys[p.alive] for p in chosen)])
    if len(keys):
        for segment in segments_of(store, keys):
            derived.write(segment)


def _drop_dead(derived: DerivedFolder, views: Views) -> None:
    """Segments of which newer ones, or deletions, have left nothing, and damaged ones."""
    view = views.newest()
    used = {p.segment.folder.name for p in view.parts if p.segment.folder is not None}
    for name, _ in view.complete:
        if name not in used:
            derived.remove(name)


def _index(derived: DerivedFolder, part: Part, kind: str | None, queries: Floats | None) -> None:
    """An index that is there stays, whoever asked for it, unless another one is asked for now."""
    has = NO_INDEX if part.ann is None else part.ann.settings.kind
    known = Derived(part.segment, part.ann, part.made)
    if kind is None and part.ann is None and part.segment.num_vectors >= SCAN_BELOW:
        derived.index(known, build_for_size, queries)
    elif kind is not None and kind != has:
        derived.index(known, lambda s, q: None if kind == NO_INDEX else build_ann(s, kind, q), queries)
