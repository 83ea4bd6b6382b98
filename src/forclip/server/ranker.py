"""Texts and pictures to ranked lists with what they are worth: each encoded once, each list searched once a version."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from PIL import Image

from forclip.confidence import Judgement, judge
from forclip.search import Searcher
from forclip.server.recent import Recent
from forclip.server.refusals import Refused, told
from forclip.types import Floats, SearchResult

_JUDGED = 1000  # of the best images, so that a cut-off is the same on every page
_SAMPLE = 2000
_TEXTS, _LISTS, _JUDGEMENTS = 10_000, 64, 1_000


@dataclass(frozen=True)
class Asked:
    """Where and how to look. depth: how many of the best are needed at least."""

    where: str | None
    exact: bool
    depth: int


class Ranker:
    """A searcher for many threads at once: the model runs one text or picture at a time."""

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.calibration = searcher.model.calibration
        self._model = Lock()
        self._texts: Recent[Floats] = Recent(_TEXTS)
        self._lists: Recent[list[SearchResult]] = Recent(_LISTS)
        self._judgements: Recent[Judgement | None] = Recent(_JUDGEMENTS)

    def text_vector(self, text: str) -> Floats:
        """Unit [dim]."""
        return self._texts.get(text, lambda: self._encoded(text))

    def picture_vector(self, picture: Image.Image) -> Floats:
        """Unit [dim]."""
        with self._model:
            return self.searcher.encode_image(picture)

    def ranked(self, vector: Floats, asked: Asked) -> list[SearchResult]:
        """At least the best `depth` images where there are so many. Raises Refused, 400, for a filter that is wrong."""
        index = self.searcher.index
        depth = max(asked.depth, _JUDGED if self.calibration else 0)
        # Pages of one list are parts of it: what is searched is rounded up.
        depth = -(-depth // 200) * 200
        key = (vector.tobytes(), asked.where, asked.exact, depth, index.store.version)
        try:
            return self._lists.get(key, lambda: index.search(vector, depth, asked.where, asked.exact))
        except ValueError as error:
            if asked.where is None:
                raise
            raise Refused(400, told(error, index.store.folder)) from None

    def judged(self, vector: Floats, best: Sequence[SearchResult], asked: Asked) -> Judgement | None:
        """Of a text's list as `ranked` gives it; None without a calibration, or in too small a gallery."""
        calibration = self.calibration
        if calibration is None:
            return None
        index = self.searcher.index
        top = np.array([r.score for r in best])

        def made() -> Judgement | None:
            scores = index.scores(vector, sample=_SAMPLE)
            return judge(calibration, top, scores, max(len(index), len(top), len(scores)))

        return self._judgements.get((vector.tobytes(), asked, len(top), index.store.version), made)

    def _encoded(self, text: str) -> Floats:
        with self._model:
            return self.searcher.encode_text(text)
