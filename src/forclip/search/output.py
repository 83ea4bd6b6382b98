"""A search answer as JSON and as a table for the terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from forclip.console import print_table
from forclip.data.training_images import describe_training_images
from forclip.evaluation.metrics import AP_DEPTH
from forclip.evaluation.sample_size import is_too_few
from forclip.location import without_range
from forclip.path_text import printable
from forclip.search.combined import CombinedResult
from forclip.search.request import LabelledList, SearchAnswer

LABEL_MARKS = {True: "right", False: "wrong", None: "?"}  # by what labels say; None: the image was not checked


def answer_json(answer: SearchAnswer) -> list[dict[str, Any]] | dict[str, Any]:
    """Return the results as plain values, best first.

    With a cut-off or labels an object: the results under `results`, next to what is known about the whole list.
    """
    cutoff, confidence, labels = answer.request.cutoff, answer.confidence, answer.labels
    results = []
    for k, result in enumerate(answer.results):
        row = {**vars(result), "box_frame": "upright"}
        if isinstance(result, CombinedResult):
            row["decided_by"] = answer.request.wanted[result.decided_by]
        if cutoff is not None:
            row["probability"] = answer.probability(result)
        if labels is not None:
            row["relevant"] = labels.relevant[k]
        results.append(row)
    if cutoff is None and labels is None:
        return results
    content: dict[str, Any] = {"results": results}
    if labels is not None:
        content["labels"] = labels.to_json()
    if cutoff is not None:
        content |= {
            "images": answer.num_searched,
            "expected_images": confidence and confidence.expected_images,
            "recommended_cutoff": confidence and confidence.cutoff,
            "wanted_precision": answer.request.options.precision,
            "nothing_here": confidence and confidence.nothing_here,
            "no_confidence_reason": answer.no_confidence_reason or None,
        }
    return content


def print_answer(answer: SearchAnswer, console: Console) -> None:
    """Print the table, then what is known about confidence and labels."""
    if answer.results:
        print_table(console, answer_table(answer))
    for line in describe_answer(answer):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def describe_answer(answer: SearchAnswer) -> list[str]:
    """Say what the model ignores, why a list is empty, down to where to trust it, and what labels say about it."""
    lines = [*answer.notes, *([] if answer.results else [describe_empty(answer)])]
    if answer.request.cutoff is not None and answer.results:
        lines.append(describe_confidence(answer))
    return lines if answer.labels is None else [*lines, _describe_labels(answer.labels)]


def describe_empty(answer: SearchAnswer) -> str:
    """Say why an answer has no result, and what to do."""
    request, best = answer.request, answer.best
    if best is None:
        return "The store has no image." if request.where is None else f"No image fits the filter {request.where!r}."
    if request.lowest_precision is not None and answer.confidence is not None and not answer.confidence.cutoff:
        return (
            f"No reliable matches: the best has a {_percent(float(answer.confidence.probabilities[0]))} probability. "
            "Omit --cutoff to see all."
        )
    lowest = max(request.min_score, request.cutoff.value if request.cutoff is not None else -1.0)
    if request.lowest_precision is None and best.score < lowest:
        return f"No image has a score of {lowest:g} or more: the best has {best.score:.3f}."
    return "No image is left: --wrong, --collapse or an offset left all of them out."


def _percent(fraction: float) -> str:
    return "less than 1 %" if fraction < 0.005 else f"{100 * fraction:.0f} %"


def answer_table(answer: SearchAnswer) -> Table:
    """Return a table with a row per result; a combined query has the normalised score and the deciding text, too."""
    combined, labels = answer.request.is_combined, answer.labels
    columns = ["rank", *(["normalised score"] if combined else []), "score"]
    columns += [*(["probability"] if answer.confidence else []), *(["decided by"] if combined else [])]
    columns += [*(["label"] if labels else []), "region (x0 y0 x1 y1)"]
    # The image comes last, so that a long path breaks no other column.
    table = Table(*columns, Column("image", overflow="fold"), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for k, result in enumerate(answer.results):
        region = "" if result.box is None else " ".join(f"{edge:.2f}" for edge in result.box)
        cells: list[str | Text] = [f"{result.score:.3f}"]
        probability = answer.probability(result)
        if probability is not None:
            cells.append(f"{probability:.0%}")
        if isinstance(result, CombinedResult):
            decided_by = Text(answer.request.wanted[result.decided_by])
            cells = [f"{result.normalised_score:.2f}", *cells, decided_by]
        if labels is not None:
            cells.append(LABEL_MARKS[labels.relevant[k]])
        table.add_row(str(result.rank), *cells, region, Text(printable(without_range(result.uri))))
    return table


def describe_confidence(answer: SearchAnswer) -> str:
    """Say in one or two sentences how many images are expected, and down to where to trust the list."""
    confidence = answer.confidence
    if confidence is None:
        return f"No confidence: {answer.no_confidence_reason}."
    count, cutoff = confidence.expected_images, confidence.cutoff
    about = "less than one" if count < 1 else f"about {count:.0f}"
    expected = f"Expected matches: {about} of {answer.num_searched} images."
    expected = "Probably no image matches." if confidence.nothing_here else expected
    wanted = f"{answer.request.options.precision:.0%} expected precision"
    if not cutoff:
        return f"{expected} No result reaches {wanted}. Omit --cutoff to see all."
    if cutoff == len(confidence.probabilities) < answer.num_searched:
        return f"{expected} Recommended cut-off: after these {cutoff} or later ({wanted}); a larger -k shows more."
    return f"{expected} Recommended cut-off: after rank {cutoff} ({wanted})."


def _describe_labels(labels: LabelledList) -> str:
    relevance, group = labels.relevance, "" if labels.group is None else f" (a {labels.group} class)"
    if relevance.average_precision is None or relevance.precision_at_10 is None:
        return f"Labels: no searched image shows {labels.class_name!r}{group}."
    if is_too_few(relevance.images):
        few = "1 image shows" if relevance.images == 1 else f"{relevance.images} images show"
        found = relevance.images - len(relevance.missed)
        shown = f"only {few} {labels.class_name!r}{group}, {found} of them among the first {AP_DEPTH}"
        return f"Labels: not enough data: {shown}."
    training = f" {describe_training_images(labels.training_images)}." if labels.training_images else ""
    return (
        f"Labels: {relevance.images} images show {labels.class_name!r}{group}. "
        f"AP@50 {relevance.average_precision:.1f} %, precision@10 {relevance.precision_at_10:.0f} %. "
        f"{len(relevance.missed)} of them are not among the first {AP_DEPTH}.{training}"
    )
