"""Text or picture to ranked images, each with the place that answered."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from forclip.calibration.model import WANTED_PRECISION, Confidence, estimate_confidence
from forclip.embedding.heatmap import Heatmap, compute_heatmap
from forclip.embedding.store_model import stored_model
from forclip.index.image_index import Index
from forclip.index.store import require_model
from forclip.index.view import View
from forclip.models.retrieval_model import RetrievalModel, load_model
from forclip.models.torch_threads import choose_thread_count, torch_threads
from forclip.types import Doubles, Floats, SearchResult

_JUDGED_BY = 2000  # images, drawn from those that are searched


class Searcher:
    """An index and the model that wrote it."""

    def __init__(self, index: Index, model: RetrievalModel) -> None:
        self.index, self.model = index, model
        self._text_threads: int | None = None  # torch's own number

    def search(
        self, text: str, k: int = 50, min_score: float = -1.0, where: str | None = None, exact: bool = False
    ) -> list[SearchResult]:
        """The best k images for a text, best first, ties by id. Raises ValueError for an empty text, and as
        Index.search does."""
        return self.search_vector(self.encode_text(text), k, min_score, where, exact)

    def search_image(
        self, image: Image.Image, k: int = 50, min_score: float = -1.0, where: str | None = None, exact: bool = False
    ) -> list[SearchResult]:
        """The best k images for all that a picture, or a crop of one, shows: Index.search_picture."""
        found = self.index.search_picture(self.encode_image(image), k, where, exact)
        return [r for r in found if r.score >= min_score]

    def search_vector(
        self, query: Floats, k: int = 50, min_score: float = -1.0, where: str | None = None, exact: bool = False
    ) -> list[SearchResult]:
        """query: unit [dim] of the model's text space."""
        return [r for r in self.index.search(query, k, where, exact) if r.score >= min_score]

    def judge(
        self,
        query: Floats,
        scores: Doubles,
        where: str | None = None,
        wanted_precision: float = WANTED_PRECISION,
    ) -> Confidence | None:
        """How sure a text's ranked list is. query: the text's vector; scores: [k], of the best images, best first, of
        those for which `where` holds. None where the model has no calibration or the images are too few to say
        anything."""
        return self.judgings(query[None], where, wanted_precision)[0](scores)

    def judgings(
        self,
        queries: Floats,
        where: str | None = None,
        wanted_precision: float = WANTED_PRECISION,
        view: View | None = None,
    ) -> list[Callable[[Doubles], Confidence | None]]:
        """As `judge`, of the texts' vectors [Q, dim] together: what to ask for each one's lists, of whatever length.
        view: the version that they are of, None: the newest."""
        calibration = self.model.calibration
        if calibration is None:
            return [lambda scores: None] * len(queries)
        samples = self.index.scores_many(queries, _JUDGED_BY, where=where, view=view)
        images = self.index.count(where, view)

        def judged(sample: Floats, scores: Doubles) -> Confidence | None:
            # Another process may take images out between the search and the count.
            return estimate_confidence(
                calibration, scores, sample, max(images, len(scores), len(sample)), wanted_precision
            )

        return [partial(judged, sample) for sample in samples]

    def encode_text(self, text: str) -> Floats:
        """Unit [dim]. Raises ValueError for an empty text."""
        vector: Floats = self.encode_texts([text])[0]
        return vector

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Unit [texts, dim], of at least one text, all at once. Raises ValueError where one is empty."""
        if not all(text.strip() for text in texts):
            raise ValueError("the text query is empty")
        with torch_threads(self._text_threads):
            vectors: Floats = self.model.encode_queries([text.strip() for text in texts]).cpu().numpy()
        return vectors

    def warm_up(self) -> None:
        """Loads the tokenizer, which the first text would wait for, and finds out in how many threads of torch's texts
        are encoded fastest."""
        self.encode_text("a first text")
        self._text_threads = choose_thread_count(lambda: self.encode_text("a text"))

    def heatmap(self, picture: Image.Image, vector: Floats) -> Heatmap:
        """Where in a picture one of its stored vectors, unit [dim], comes from."""
        return compute_heatmap(self.model, picture, vector)

    def encode_image(self, image: Image.Image) -> Floats:
        """All vectors of a picture, unit [N, dim]."""
        vectors: Floats = self.model.encode_image(image).cpu().numpy()
        return vectors


def open_searcher(folder: Path, device: str = "cpu") -> Searcher:
    """Opens a store and loads the model named in it. Raises ValueError where that model has changed since."""
    index = Index(folder)
    config, head, count = stored_model(index.store.header)
    model = load_model(config, device, head, count)
    require_model(index.store, model.fingerprint)
    return Searcher(index, model)
