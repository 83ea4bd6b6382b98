"""Planning by lookups and by columns finds what comparing dicts of all files finds."""

import os
import random
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from forclip.data.images.content import content_digest, file_state
from forclip.data.images.decode import DECODING, FIRST_UPRIGHT, picture_needs_reindex
from forclip.embedding.changes import UnreadableImage, find_changes
from forclip.embedding.stored_files import StoredFiles
from forclip.index.create_store import create_store
from forclip.index.roots import Roots, source_reference
from forclip.index.store import ImageFile
from forclip.path_text import text_to_path
from tests.index.made import HEADER, some


def plan_by_dicts(
    folder: Path, paths: list[Path], roots: Roots, stored: Mapping[str, ImageFile], known: Mapping[str, UnreadableImage]
) -> dict[str, Any]:
    """What has changed, by a loop over all files and one over all stored images."""
    by_id = {roots.id_of(path): path for path in paths}
    origins = {name: source_reference(roots, name, str(folder)) for name in roots.folders}
    todo, skipped, checked = dict[str, ImageFile](), dict[str, UnreadableImage](), list[str]()
    for image_id, path in by_id.items():
        state, file = file_state(path), stored.get(image_id)
        if image_id in known and (known[image_id].size, known[image_id].modified) == state:
            skipped[image_id] = known[image_id]
        elif file is None or ((file.size, file.modified) != state and content_digest(path) != file.content_hash):
            origin = origins[image_id.partition("/")[0]]
            todo[image_id] = ImageFile(image_id, 0, 0, content_digest(path) or "", *state, origin, DECODING)
        elif 0 < file.decoding < FIRST_UPRIGHT:
            if picture_needs_reindex(path):
                todo[image_id] = ImageFile(image_id, 0, 0, file.content_hash, *state, file.source, DECODING)
            else:
                checked.append(image_id)
    by_hash = defaultdict(list)
    for image_id, file in stored.items():
        if image_id in todo or image_id not in by_id:
            by_hash[file.content_hash].append(image_id)
    moved: dict[str, tuple[str, ImageFile]] = {}
    for new_id, file in todo.items():
        for old_id in by_hash[file.content_hash]:
            is_gone = old_id in todo or not os.path.exists(roots.resolve(stored[old_id].uri))
            if old_id not in moved and is_gone and old_id != new_id:
                moved[old_id] = new_id, file
                break
    for old_id, (new_id, _) in moved.items():
        if not (0 < stored[old_id].decoding < FIRST_UPRIGHT and picture_needs_reindex(by_id[new_id])):
            del todo[new_id]
    vanished = {
        image_id: file.uri
        for image_id, file in stored.items()
        if image_id not in by_id and image_id not in moved
        if file.source == origins.get(file.uri.partition("/")[0])
        or (roots.resolve(file.uri).startswith(f"{folder}/") and not text_to_path(roots.resolve(file.uri)).exists())
    }
    return {"todo": todo, "skipped": skipped, "checked": checked, "moved": moved, "vanished": vanished}


def change(folder: Path, rng: random.Random, paths: list[Path]) -> None:
    """Change, touch, delete, copy, move and add files."""
    for path in rng.sample(paths, len(paths) // 2):
        match rng.randrange(6):
            case 0:
                path.write_text(f"{rng.random()}")
            case 1:
                os.utime(path, ns=(1, rng.randrange(10**9)))
            case 2:
                path.unlink()
            case 3:
                path.rename(path.with_name(f"moved {rng.random()}.jpg"))
            case 4:
                path.with_name(f"copy {rng.random()}.jpg").write_bytes(path.read_bytes())
            case 5:
                (folder / f"new {rng.random()}.jpg").write_text(f"{rng.random()}")


@pytest.mark.parametrize("seed", range(6))
def test_lookups_and_columns_find_what_dicts_find(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, photos = random.Random(seed), tmp_path / "photos"
    for n in range(40):
        path = photos / "ab"[n % 2] / f"it's {n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content {n // 2 if n < 10 else n}")  # some are equal
    listed = sorted(photos.rglob("*.jpg"))
    roots = Roots().with_folder(photos)
    origins = ["photos", "photos/a", "", "photos/other.csv"]
    files = [
        ImageFile(
            roots.id_of(p),
            1,
            1,
            content_digest(p) or "",
            *file_state(p),
            rng.choice(origins),
            rng.choice([0, 1, 2, DECODING]),
        )
        for p in listed
        if rng.random() < 0.8
    ]
    ids = [file.uri if rng.random() < 0.9 else f"own {n}" for n, file in enumerate(files)]
    store = create_store(tmp_path / "s", HEADER)
    store.put(some(ids), files)
    change(photos, rng, listed)
    paths = sorted(photos.rglob("*.jpg"))
    known = {
        roots.id_of(p): UnreadableImage(roots.id_of(p), *(file_state(p) if rng.random() < 0.5 else (1, 1)), "cut")
        for p in rng.sample(paths, 5)
    }
    monkeypatch.setattr("forclip.embedding.changes._IDS_AT_ONCE", 7)
    for source in (photos, photos / "a"):
        of_source = [p for p in paths if p.is_relative_to(source)]
        expected = plan_by_dicts(source, of_source, roots, dict(zip(ids, files, strict=True)), known)
        for read_per_lookup in (0, 10**9):
            monkeypatch.setattr("forclip.embedding.stored_files._READ_PER_LOOKUP", read_per_lookup)
            steps: list[int] = []
            stored = StoredFiles(store, len(of_source))
            found = find_changes(str(source), None, of_source, roots, stored, known, steps.append)
            assert {name: getattr(found, name) for name in expected} == expected
            assert found.replaced == set(ids) & found.todo.keys()
            assert sum(steps) == len(of_source)


def test_without_a_store_everything_is_new(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("a")
    paths = [tmp_path / "photos" / "a.jpg"]
    found = find_changes(str(tmp_path / "photos"), None, paths, Roots(), StoredFiles(None, 1), {}, lambda n: None)
    assert list(found.todo) == ["photos/a.jpg"]
    assert (found.replaced, found.vanished, found.moved) == (frozenset(), {}, {})
