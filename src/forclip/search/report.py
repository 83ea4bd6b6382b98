"""`--report`: what a search found as one HTML file with the pictures inside, to keep or to send to someone."""

from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from forclip.atomic_write import write_text_atomically
from forclip.evaluation.charts import Curve, line_chart
from forclip.evaluation.result_grid import EmbeddedThumbnails
from forclip.search.combined import CombinedResult
from forclip.search.output import how_sure
from forclip.search.request import Answer
from forclip.types import SearchResult

_TEMPLATE = "report.html"


def write_search_report(path: Path, answer: Answer, store: str) -> None:
    """One file without outside requests or scripts; pictures that can't be read become grey tiles. store: its name.

    Raises OSError where the file can't be written.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("forclip.search").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    thumbnails = EmbeddedThumbnails([Path(r.uri) for r in answer.results])
    html = environment.from_string(source).render(
        label=answer.request.label,
        facts=[f"{len(answer.results)} images", f"from {store}", *_conditions(answer)],
        sure=how_sure(answer) if answer.request.cutoff is not None else "",
        curve=_curve(answer),
        thumbnails=thumbnails,
        tiles=[
            (r.rank, _tile(thumbnails, r), _worth(answer, r), _decided_by(answer, r), r.uri) for r in answer.results
        ],
    )
    write_text_atomically(path, html)


def _conditions(answer: Answer) -> list[str]:
    request = answer.request
    said = [] if request.where is None else [f"where {request.where}"]
    if request.is_refined:
        said.append(f"after {len(request.right)} right and {len(request.wrong)} wrong picks")
    return said


def _curve(answer: Answer) -> Markup | None:
    """The share of the images down to each rank that are expected to be right."""
    judged = answer.confidence
    if judged is None or len(judged.expected_precision) < 2:
        return None
    percent = 100 * judged.expected_precision
    ranks = tuple(float(rank) for rank in range(1, len(percent) + 1))
    return line_chart(Curve("expected precision, %", ranks, tuple(percent.tolist()), "rank"))


def _tile(thumbnails: EmbeddedThumbnails, result: SearchResult) -> Markup:
    return thumbnails.picture(Path(result.uri), Path(result.uri).name, f"rank {result.rank}", result.box)


def _worth(answer: Answer, result: SearchResult) -> str:
    sure = answer.probabilities
    if isinstance(result, CombinedResult):
        return f"normalised_score {result.normalised_score:.2f}"
    return f"{sure[result.rank - 1]:.0%} ({result.score:.3f})" if sure else f"{result.score:.3f}"


def _decided_by(answer: Answer, result: SearchResult) -> str:
    return answer.request.wanted[result.decided_by] if isinstance(result, CombinedResult) else ""
