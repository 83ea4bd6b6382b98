"""A search's answer beside labels of the store's images, where its text names a class."""

from dataclasses import replace

from forclip.evaluation.protocol import did_you_mean
from forclip.relevance import judge_by_labels
from forclip.search import Searcher
from forclip.search_request import Answer, ByLabels
from forclip.store_labels import StoreLabels


def with_labels(searcher: Searcher, found: Answer, labels: StoreLabels) -> Answer:
    """The answer with what the labels say of it. Raises ValueError for a search that is not for one text alone, and for
    a text that names no class."""
    request = found.request
    if request.text is None or request.is_combined or request.is_refined:
        raise ValueError(f"labels are compared with one text's list, not with {request.label!r} or with picks")
    names, column = labels.images.class_names, labels.class_of(request.text)
    if column is None:
        raise ValueError(f"{request.text!r} names no class of the labels{did_you_mean(request.text, names)}")
    query = searcher.encode_text(request.text)
    relevance = judge_by_labels(searcher.index, labels, column, query, request.where, request.exact)
    verdicts = tuple(labels.shows(r.image_id, column) for r in found.results)
    return replace(found, by_labels=ByLabels(names[column], labels.groups.get(names[column]), relevance, verdicts))
