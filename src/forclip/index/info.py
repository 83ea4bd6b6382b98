"""What a store holds and how it is searched, as plain JSON values."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from forclip.index.schema import FORMAT_VERSION
from forclip.index.store import Store
from forclip.index.view import Part, View


def describe_index(store: Store, view: View) -> dict[str, Any]:
    """Sizes are bytes on disk; a part without an index is compared vector by vector."""
    header = store.header
    return {
        "images": len(view),
        "vectors": sum(p.num_vectors for p in view.parts),
        "dim": header.dim,
        "precision": header.precision,
        "fingerprint": header.fingerprint,
        "format_version": FORMAT_VERSION,
        "version": int(view.table.version),
        "columns": store.own_columns,
        "table_bytes": _bytes_below(store.folder / "images.lance"),
        "search_bytes": _bytes_below(store.folder / "search"),
        "parts": [_part(p) for p in view.parts],
    }


def _part(part: Part) -> dict[str, Any]:
    index = {"index": "none"} if part.ann is None else {"index": part.ann.settings.kind, **asdict(part.ann.settings)}
    index.pop("kind", None)
    place = "memory" if part.in_memory else "mapped"
    return {"images": int(part.alive.sum()), "vectors": part.num_vectors, "place": place, **index}


def _bytes_below(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
