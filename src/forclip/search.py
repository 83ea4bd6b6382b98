"""Text to ranked images, each with the place that answered."""

from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from forclip.config import ModelConfig
from forclip.index.exact import best_vectors, rank
from forclip.index.store import Store, StoredImages, StoreHeader, require_model
from forclip.models.retrieval_model import RetrievalModel, load_model
from forclip.types import Floats, SearchResult


class Searcher:
    """A store in memory and the model that wrote it."""

    def __init__(self, stored: StoredImages, model: RetrievalModel) -> None:
        self.stored, self.model = stored, model

    def search(self, text: str, k: int = 50, min_score: float = -1.0) -> list[SearchResult]:
        """The best k images for a text, best first, ties by id. Raises ValueError for an empty text or k below 1."""
        if not text.strip():
            raise ValueError("the text query is empty")
        query = self.model.encode_query(text.strip()).cpu().numpy()
        return self.search_vector(query, k, min_score)

    def search_vector(self, query: Floats, k: int = 50, min_score: float = -1.0) -> list[SearchResult]:
        """query: unit [dim] of the model's text space."""
        embeddings = self.stored.embeddings
        scores, winners = best_vectors(embeddings, query)
        rows = rank(scores, embeddings.image_ids, k)
        return [
            self._result(n, row, scores, winners) for n, row in enumerate(rows, start=1) if scores[row] >= min_score
        ]

    def _result(self, number: int, row: int, scores: Floats, winners: np.ndarray) -> SearchResult:
        boxes = self.stored.embeddings.boxes
        box = None
        if boxes is not None:
            x0, y0, x1, y1 = map(float, boxes[winners[row]])
            box = (x0, y0, x1, y1)
        return SearchResult(
            number, self.stored.embeddings.image_ids[row], self.stored.uris[row], float(scores[row]), box
        )


def open_searcher(folder: Path, device: str = "cpu") -> Searcher:
    """Loads a store and the model named in it. Raises ValueError where that model has changed since."""
    store = Store(folder)
    described = dict(store.header.model)
    head, count = described.pop("head"), described.pop("num_query_tokens")
    model = load_model(ModelConfig(**described), device, head, count)
    require_model(store, model.fingerprint)
    return Searcher(store.load(), model)


def store_header(model: RetrievalModel, config: ModelConfig, dim: int, head: str, num_query_tokens: int) -> StoreHeader:
    """What a new store remembers of the model that fills it."""
    # A run's folder must be found again from wherever the search is called.
    folder = Path(config.name)
    described = {
        "name": str(folder.resolve()) if folder.is_dir() else config.name,
        "pretrained": config.pretrained,
        "image_size": config.image_size,
        "resize_mode": config.resize_mode,
        "head": head,
        "num_query_tokens": num_query_tokens,
    }
    return StoreHeader(model.fingerprint, dim, described)


def result_table(results: list[SearchResult]) -> Table:
    """Rank, score, image and place, for a terminal."""
    table = Table("rank", "score", "image", "place (x0 y0 x1 y1)")
    for r in results:
        place = "" if r.box is None else " ".join(f"{edge:.2f}" for edge in r.box)
        table.add_row(str(r.rank), f"{r.score:.3f}", Text(r.uri, overflow="fold"), place)
    return table
