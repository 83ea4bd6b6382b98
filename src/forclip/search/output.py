"""What a search found, for a terminal and as JSON."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forclip.calibration.model import WANTED_PRECISION, Confidence
from forclip.search.combined import CombinedResult
from forclip.search.labels import DEPTH
from forclip.search.request import Answer, ByLabels
from forclip.types import SearchResult

_VERDICTS = {True: "right", False: "wrong", None: "?"}


def answer_json(answer: Answer) -> list[dict[str, Any]] | dict[str, Any]:
    """The results, each with its fields, best first. With a cut-off an object: these under `results`, each with its
    `probability`, beside what is believed of the whole list, all null where nothing can be said. With labels likewise:
    each result with `relevant`, beside `labels`."""
    results = [_result_json(answer, r) for r in answer.results]
    judged, labels = answer.confidence, answer.by_labels
    for k, row in enumerate(results):
        row |= {} if answer.request.cutoff is None else {"probability": answer.probabilities[k] if judged else None}
        row |= {} if labels is None else {"relevant": labels.verdicts[k]}
    by_labels = {} if labels is None else {"labels": _labels_json(labels)}
    if answer.request.cutoff is None:
        return {"results": results, **by_labels} if by_labels else results
    return {
        "results": results,
        **by_labels,
        "images": answer.gallery,
        "expected_images": judged and judged.expected_images,
        "recommended_cutoff": judged and judged.cutoff,
        "wanted_precision": _wanted_precision(answer),
        "nothing_here": judged and judged.nothing_here,
        "why_unsure": answer.why_unsure or None,
    }


def print_answer(answer: Answer, console: Console) -> None:
    """The table, and a line that says how sure it is where that was asked."""
    console.print(answer_table(answer))
    if answer.request.cutoff is not None:
        console.print(how_sure(answer), markup=False, highlight=False)
    if answer.by_labels is not None:
        console.print(by_labels(answer.by_labels), markup=False, highlight=False)


def answer_table(answer: Answer) -> Table:
    """Rank, score, probability, image and region; for a combined query also the normalised score and deciding text."""
    combined = answer.request.is_combined
    sure = answer.probabilities
    head = ["rank", *(["normalised_score"] if combined else []), "score", *(["probability"] if sure else [])]
    labels = answer.by_labels
    more = [*(["decided by"] if combined else []), *(["label"] if labels else [])]
    table = Table(*head, *more, "image", "place (x0 y0 x1 y1)")
    for k, r in enumerate(answer.results):
        cells: list[str | Text] = [str(r.rank), f"{r.score:.3f}"]
        if sure:
            cells.append(f"{sure[k]:.0%}")
        if isinstance(r, CombinedResult):
            cells.insert(1, f"{r.normalised_score:.2f}")
            cells.append(Text(answer.request.wanted[r.decided_by]))
        if labels is not None:
            cells.append(_VERDICTS[labels.verdicts[k]])
        place = "" if r.box is None else " ".join(f"{edge:.2f}" for edge in r.box)
        table.add_row(*cells, Text(r.uri, overflow="fold"), place)
    return table


def how_sure(answer: Answer) -> str:
    """A sentence or two: how many images are expected, and down to where to trust the list."""
    judged = answer.confidence
    if judged is None:
        return f"Nothing is said of how sure this is: {answer.why_unsure}."
    count = judged.expected_images
    about = "less than one" if count < 1 else f"about {count:.0f}"
    expected = f"Expected to show it: {about} of {answer.gallery} images."
    return f"{'Probably none here.' if judged.nothing_here else expected} {_recommended(answer, judged)}"


def by_labels(said: ByLabels) -> str:
    """One sentence: how good the list is, and what it misses."""
    found, group = said.relevance, "" if said.group is None else f", a {said.group} class"
    if found.average_precision is None or found.precision_at_10 is None:
        return f"By the labels no image here shows {said.class_name!r}{group}."
    shown = f"By the labels {found.relevant} images show {said.class_name!r}{group}"
    worth = f"AP@50 {found.average_precision:.1f} %, {found.precision_at_10:.0f} % of the first 10 right"
    return f"{shown}: {worth}; {len(found.missed)} are not among the first {DEPTH}."


def _labels_json(said: ByLabels) -> dict[str, Any]:
    found = said.relevance
    return {
        "class_name": said.class_name,
        "group": said.group,
        "images": found.relevant,
        "precision_at_10": found.precision_at_10,
        "average_precision": found.average_precision,
        "missed": list(found.missed),
    }


def _recommended(answer: Answer, judged: Confidence) -> str:
    wanted = f"{_wanted_precision(answer):.0%} expected precision"
    if not judged.cutoff:
        return f"Recommended cut-off: before the first, none reaches {wanted}."
    if judged.cutoff == len(judged.probabilities) < answer.gallery:
        return f"Recommended cut-off: after these {judged.cutoff} or further down ({wanted}); -k shows more."
    return f"Recommended cut-off: after rank {judged.cutoff} ({wanted})."


def _wanted_precision(answer: Answer) -> float:
    cutoff = answer.request.cutoff
    return cutoff.value if cutoff is not None and cutoff.kind == "precision" else WANTED_PRECISION


def _result_json(answer: Answer, result: SearchResult) -> dict[str, Any]:
    plain = dict(vars(result))
    if isinstance(result, CombinedResult):
        plain["decided_by"] = answer.request.wanted[result.decided_by]
    return plain
