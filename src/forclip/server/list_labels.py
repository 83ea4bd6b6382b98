"""What labels say of the lists that the service finds."""

from collections.abc import Sequence

from forclip.search.labels import Relevance, StoreLabels, judge_by_labels, missed_images, wrong_images
from forclip.server.errors import Refused
from forclip.server.judged_lists import Asked
from forclip.server.ranker import Ranker
from forclip.server.recent import Recent
from forclip.server.schemas import ListLabels, SearchAnswer
from forclip.types import Floats, SearchResult

_KEPT = 64


class LabelledLists:
    """labels: None where there are none, so that nothing is said."""

    def __init__(self, ranker: Ranker, labels: StoreLabels | None) -> None:
        self.index, self.labels = ranker.searcher.index, labels
        self._judged: Recent[Relevance] = Recent(_KEPT)

    def know(self, text: str) -> bool:
        """Whether a text names a class of the labels."""
        return self.labels is not None and self.labels.class_of(text) is not None

    def judged(self, text: str, vector: Floats, asked: Asked) -> Relevance | None:
        """None where the text names no class of the labels. The filter must be known to be right."""
        labels = self.labels
        column = None if labels is None else labels.class_of(text)
        if labels is None or column is None:
            return None
        key = (vector.tobytes(), column, asked.where, asked.exact, self.index.store.version)
        return self._judged.get(
            key, lambda: judge_by_labels(self.index, labels, column, vector, asked.where, asked.exact)
        )

    def mistakes(self, only: str, judged: Relevance | None, vector: Floats, asked: Asked) -> list[SearchResult]:
        """Those that are wrong, or missed. Raises Refused, 400, where nothing is known of that."""
        if judged is None or self.labels is None:
            raise Refused(400, f"the text names no class of the labels, so nothing is known to be {only}")
        if only == "missed":
            return missed_images(self.index, judged, vector, asked.where)
        return wrong_images(self.index, self.labels, judged.column, vector, asked.depth, asked.where)

    def told(self, answer: SearchAnswer, best: Sequence[SearchResult], judged: Relevance | None) -> SearchAnswer:
        """The answer with a verdict on each image. best: the list that it is a part of."""
        labels = self.labels
        if judged is None or labels is None:
            return answer
        id_of = {r.rank: r.image_id for r in best}
        name = labels.images.class_names[judged.column]
        for result in answer.results:
            result.relevant = labels.shows(id_of[result.rank], judged.column)
        answer.labels = ListLabels(
            class_name=name,
            group=labels.groups.get(name),
            images=judged.relevant,
            precision_at_10=judged.precision_at_10,
            average_precision=judged.average_precision,
            missed=len(judged.missed),
        )
        return answer
