"""Search a store by text, picture or vector."""

import os
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, overload

import numpy as np
import torch
from PIL import Image
from typing_extensions import TypeVar

from forclip.calibration.model import SCORE_SAMPLE, Confidence, estimate_confidence
from forclip.config import ComputeChoice, ModelConfig
from forclip.data.images.decode import read_image
from forclip.embedding.merge import limit_vectors
from forclip.embedding.regions import Heatmap, compute_heatmap
from forclip.index import TOP_K
from forclip.index.create_store import written_by_another
from forclip.index.image_index import Index
from forclip.index.milvus.address import is_milvus
from forclip.index.protocol import SearchIndex
from forclip.index.ranking import Ranking
from forclip.location import Location, as_location
from forclip.models.retrieval_model import RetrievalModel, load_store_model
from forclip.search.combined import CombinedQuery, CombinedResult, search_combined
from forclip.search.feedback import refined_query
from forclip.search.labels import Relevance, StoreLabels, evaluate_list
from forclip.search.result_list import ResultList
from forclip.types import Floats, ImageEmbeddings, SearchResult

_REQUIRED_RATIO = 0.7  # of one thread's time: on a busy machine more threads get slower, so the gain must be clear


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Set the number of threads inside a block, for the calling thread. None keeps the current number."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_thread_count(work: Callable[[], object]) -> int:
    """Return the current number of threads if `work` is clearly faster with it, else 1. Compares the best of 5 runs."""
    most = torch.get_num_threads()
    return most if most > 1 and _seconds(work, most) < _REQUIRED_RATIO * _seconds(work, 1) else 1


def _seconds(work: Callable[[], object], threads: int) -> float:
    with torch_threads(threads):
        return min(timeit.repeat(work, timer=time.perf_counter, number=1, repeat=5))


@dataclass(frozen=True)
class ListOptions:
    """How a ranked list is made.

    depth: how many of the best images are needed at least. precision: the expected precision down to which the list is
    to be trusted, 0..1, or None where no confidence is needed.
    """

    where: str | None = None
    exact: bool = False
    depth: int = TOP_K
    precision: float | None = None


@dataclass(frozen=True)
class RankedText:
    """The ranked list of one text. confidence: None where it was not requested or cannot be estimated."""

    results: Ranking
    confidence: Confidence | None


# Of the classes that search, most are for a store's own index.
AnyIndex = TypeVar("AnyIndex", bound=SearchIndex, default=Index, covariant=True)


class Searcher(Generic[AnyIndex]):
    """An index and the model that wrote it.

    `search`, `search_image` and `search_vector` are short forms. `forclip.search.request.run_search` answers a full
    SearchRequest, through `rank_texts`, `rank`, `rank_combined`, `refine` and `evaluate_list`.
    """

    def __init__(self, index: AnyIndex, model: RetrievalModel) -> None:
        self.index, self.model = index, model
        self._text_threads: int | None = None  # torch's own number

    def search(
        self, text: str, k: int = TOP_K, min_score: float = -1.0, where: str | None = None, exact: bool = False
    ) -> ResultList:
        """Return the best k images for a text, best first, ties by id. Jupyter shows the list as pictures.

        Args:
            min_score: leave out images below this cosine.
            where: an SQL expression over the store's columns.
            exact: compare every vector instead of using the approximate index.

        Raises:
            ValueError: for an empty text, k below 1, or a filter that is not valid SQL.
        """
        return self.search_vector(self.encode_text(text), k, min_score, where, exact)

    def search_image(
        self,
        image: Image.Image | Location | str,
        k: int = TOP_K,
        min_score: float = -1.0,
        where: str | None = None,
        exact: bool = False,
    ) -> ResultList:
        """Return the best k images for everything that a picture, or a crop of one, shows (Index.search_picture).

        image: an upright RGB picture, or its file. Raises ValueError for a file that can't be read.
        """
        results = self.rank(self.encode_image(image), ListOptions(where, exact, k))
        return ResultList(r for r in results if r.score >= min_score)

    def search_vector(
        self, query: Floats, k: int = TOP_K, min_score: float = -1.0, where: str | None = None, exact: bool = False
    ) -> ResultList:
        """Return the best k images for a unit vector [dim] of the model's text space."""
        return ResultList(r for r in self.rank(query, ListOptions(where, exact, k)) if r.score >= min_score)

    def rank(self, query: Floats, options: ListOptions) -> Sequence[SearchResult]:
        """Rank images for one vector [dim], or for all vectors of a picture [N, dim], of unit length."""
        depth = self._depth(options)
        if query.ndim > 1:
            return self.index.search_picture(query, depth, options.where, options.exact)
        return self.index.rankings(query[None], depth, options.where, options.exact)[0]

    def rank_combined(self, query: CombinedQuery, options: ListOptions) -> Sequence[CombinedResult]:
        """Rank images for several texts."""
        calibration = self.model.calibration
        return search_combined(self.index, query, options.depth, options.where, options.exact, calibration)

    def rank_texts(self, texts: Sequence[str], options: ListOptions, view: Any = None) -> list[RankedText]:
        """Rank images for each text, all in one pass; with `options.precision` also estimate the confidence.

        view: the version of the store to search; None: the newest.
        """
        view, vectors = self.index.view() if view is None else view, self.encode_texts(texts)
        rankings = self.index.rankings(vectors, self._depth(options), options.where, options.exact, view)
        calibration, precision = self.model.calibration, options.precision
        if precision is None or calibration is None:
            return [RankedText(ranking, None) for ranking in rankings]
        ranked, images = [], self.index.count(options.where, view)
        samples = self.index.scores_many(vectors, SCORE_SAMPLE, where=options.where, view=view)
        for ranking, sample in zip(rankings, samples, strict=True):
            # Another process may delete images between the search and the count.
            size = max(images, len(ranking), len(sample))
            confidence = estimate_confidence(calibration, ranking.scores, sample, size, precision)
            ranked.append(RankedText(ranking, confidence))
        return ranked

    def _depth(self, options: ListOptions) -> int:
        return min(options.depth, self.index.most_results or options.depth)

    def refine(self, query: Floats, right: Sequence[str], wrong: Sequence[str], where: str | None) -> Floats:
        """Return the query vector [dim] refined by verdicts on images (forclip.search.feedback)."""
        return refined_query(self.index, query, right, wrong, where)

    def evaluate_list(self, labels: StoreLabels, column: int, vector: Floats, options: ListOptions) -> Relevance:
        """Compare a text's list with the labels of the class in a column. vector: the text's, unit [dim]."""
        return evaluate_list(self.index, labels, column, vector, options.where, options.exact)

    def encode_text(self, text: str) -> Floats:
        """Return a text's unit vector [dim]. Raises ValueError for an empty text."""
        vector: Floats = self.encode_texts([text])[0]
        return vector

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return unit vectors [texts, dim] of at least one text. Raises ValueError for an empty text."""
        if not all(text.strip() for text in texts):
            raise ValueError("the text query is empty")
        with torch_threads(self._text_threads):
            vectors: Floats = self.model.encode_queries([text.strip() for text in texts]).cpu().numpy()
        return vectors

    def warm_up(self) -> None:
        """Load the tokenizer and measure in how many threads texts are encoded fastest, so that no search waits."""
        self.encode_text("a first text")
        self._text_threads = choose_thread_count(lambda: self.encode_text("a text"))

    def heatmap(self, picture: Image.Image | Location | str, vector: Floats) -> Heatmap:
        """Return where in a picture, or its file, one of its stored unit vectors [dim] comes from."""
        return compute_heatmap(self.model, _picture(picture), vector)

    def encode_image(self, image: Image.Image | Location | str) -> Floats:
        """Return the unit vectors of a picture, or its file, [N, dim], at most as many as the store keeps of one.

        Raises ValueError for a file that can't be read.
        """
        vectors: Floats = self.model.encode_image(_picture(image)).cpu().numpy()
        most = self.index.store.header.max_vectors
        if most is None:
            return vectors
        return limit_vectors(ImageEmbeddings(vectors, np.array([0, len(vectors)]), ("",)), most).vectors


def _picture(image: Image.Image | Location | str) -> Image.Image:
    return image if isinstance(image, Image.Image) else read_image(as_location(image))


AnySearcher: TypeAlias = Searcher[SearchIndex]


def open_index(place: str | os.PathLike[str]) -> SearchIndex:
    """Open a store, or a published one by its address, such as milvus://host/photos.

    Raises ValueError if there is none.
    """
    if is_milvus(place):
        from forclip.index.milvus.index import MilvusIndex

        return MilvusIndex(str(place))
    return Index(place)


@overload
def open_searcher(
    place: os.PathLike[str],
    device: str = "cpu",
    model_override: ModelConfig | None = None,
    compute: ComputeChoice | None = None,
) -> Searcher: ...
@overload
def open_searcher(
    place: str, device: str = "cpu", model_override: ModelConfig | None = None, compute: ComputeChoice | None = None
) -> AnySearcher: ...
def open_searcher(
    place: str | os.PathLike[str],
    device: str = "cpu",
    model_override: ModelConfig | None = None,
    compute: ComputeChoice | None = None,
) -> AnySearcher:
    """Open a store, or a published one, and load the model that wrote it.

    Args:
        place: as `open_index` takes it.
        model_override: where the model's weights are now, if they have moved: a run, or a pretrained model.
        compute: number format of pictures that are searched with, None for the default of the device. Texts are
            encoded in float32.

    Raises:
        ValueError: where there is no store, or its model is missing or has other weights than those that wrote it.
    """
    index = open_index(place)
    header = index.store.header
    model = load_store_model(index.store.model_folder, header, device, model_override, compute=compute)
    if header.fingerprint != model.fingerprint:
        raise ValueError(written_by_another(index.name, header))
    return Searcher(index, model)
