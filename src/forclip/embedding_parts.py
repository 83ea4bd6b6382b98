"""Many pictures embedded part by part, so that each part can be stored before the next is begun."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forclip.data.views import PLAIN
from forclip.embedding import EncodedBatch, embed_batch, encode_batches, joined
from forclip.index.merging import merge_near_duplicates
from forclip.index.store import ImageFile
from forclip.index_plan import BadPicture
from forclip.models.retrieval_model import RetrievalModel
from forclip.progress import Advance, silent
from forclip.types import ImageEmbeddings


@dataclass(frozen=True)
class EmbeddedPart:
    """embeddings: None where no picture of the part can be read; files: what they are of, with sizes; bad: by id."""

    embeddings: ImageEmbeddings | None
    files: list[ImageFile]
    bad: dict[str, BadPicture]


def embed_parts(
    model: RetrievalModel,
    todo: Mapping[str, ImageFile],
    paths: Mapping[str, Path],
    images_a_part: int,
    merge: float | None = None,
    processes: int = 0,
    advance: Advance = silent,
) -> Iterator[EmbeddedPart]:
    """todo and paths: by id. merge: as merge_near_duplicates takes it, None keeps all vectors; processes: as
    stream_prepared takes them. Memory stays at one part and two batches of pixels."""
    ids = list(todo)
    embedded: list[tuple[ImageEmbeddings, list[ImageFile]]] = []
    bad: dict[str, BadPicture] = {}
    pending = 0
    for batch in encode_batches(model.backbone, ids, [paths[i] for i in ids], [PLAIN], advance, processes):
        for row, skipped in batch.skipped:
            file = todo[ids[row]]
            bad[ids[row]] = BadPicture(file.uri, file.size, file.modified, skipped.reason)
        if batch.rows:
            embedded.append(_embed(model, batch, ids, todo, merge))
        pending += len(batch.rows) + len(batch.skipped)
        if pending >= images_a_part:
            yield _part(embedded, bad)
            embedded, bad, pending = [], {}, 0
    if pending:
        yield _part(embedded, bad)


def _embed(
    model: RetrievalModel, batch: EncodedBatch, ids: Sequence[str], todo: Mapping[str, ImageFile], merge: float | None
) -> tuple[ImageEmbeddings, list[ImageFile]]:
    kept = [ids[row] for row in batch.rows]
    embeddings = embed_batch(model, batch, kept)
    sizes = zip(kept, batch.sizes, strict=True)
    files = [replace(todo[i], width=width, height=height) for i, (width, height) in sizes]
    return embeddings if merge is None else merge_near_duplicates(embeddings, merge), files


def _part(embedded: list[tuple[ImageEmbeddings, list[ImageFile]]], bad: dict[str, BadPicture]) -> EmbeddedPart:
    if not embedded:
        return EmbeddedPart(None, [], bad)
    found = joined([embeddings for embeddings, _ in embedded])
    return EmbeddedPart(found, [file for _, files in embedded for file in files], bad)
