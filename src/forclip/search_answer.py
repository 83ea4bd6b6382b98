"""What a search found, for a terminal and as JSON."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from forclip.combined_queries import CombinedResult
from forclip.confidence import WANTED_PRECISION, Judgement
from forclip.search_request import Answer
from forclip.types import SearchResult


def answer_json(answer: Answer) -> list[dict[str, Any]] | dict[str, Any]:
    """The results, each with its fields, best first. With a cut-off an object: these under `results`, each with its
    `probability`, beside what is believed of the whole list, all null where nothing can be said."""
    results = [_result_json(answer, r) for r in answer.results]
    if answer.request.cutoff is None:
        return results
    judged = answer.judgement
    for k, row in enumerate(results):
        row["probability"] = answer.probabilities[k] if judged else None
    return {
        "results": results,
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


def answer_table(answer: Answer) -> Table:
    """Rank, score, probability, image and place; of a combined query the standing, and the text that decided."""
    combined = answer.request.is_combined
    sure = answer.probabilities
    head = ["rank", *(["standing"] if combined else []), "score", *(["probability"] if sure else [])]
    table = Table(*head, *(["decided by"] if combined else []), "image", "place (x0 y0 x1 y1)")
    for k, r in enumerate(answer.results):
        cells: list[str | Text] = [str(r.rank), f"{r.score:.3f}"]
        if sure:
            cells.append(f"{sure[k]:.0%}")
        if isinstance(r, CombinedResult):
            cells.insert(1, f"{r.standing:.2f}")
            cells.append(Text(answer.request.wanted[r.decided_by]))
        place = "" if r.box is None else " ".join(f"{edge:.2f}" for edge in r.box)
        table.add_row(*cells, Text(r.uri, overflow="fold"), place)
    return table


def how_sure(answer: Answer) -> str:
    """A sentence or two: how many images are expected, and down to where to trust the list."""
    judged = answer.judgement
    if judged is None:
        return f"Nothing is said of how sure this is: {answer.why_unsure}."
    start = "Probably none here. " if judged.nothing_here else ""
    count = judged.expected_images
    about = "less than one" if count < 1 else f"about {count:.0f}"
    return f"{start}Expected to show it: {about} of {answer.gallery} images. {_recommended(answer, judged)}"


def _recommended(answer: Answer, judged: Judgement) -> str:
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
