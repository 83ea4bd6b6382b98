"""`--report`: a search answer as one HTML file with the pictures inside."""

from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from forclip.atomic_write import write_text_atomically
from forclip.evaluation.charts import Curve, line_chart
from forclip.evaluation.result_grid import EmbeddedThumbnails
from forclip.location import parse_location, without_range
from forclip.search.combined import CombinedResult
from forclip.search.output import LABEL_MARKS, describe_answer
from forclip.search.request import SearchAnswer


def write_search_report(path: Path, answer: SearchAnswer, store: str) -> None:
    """Write one file without scripts or requests to elsewhere. Unreadable pictures become grey tiles.

    store: the store's name. Raises OSError where the file cannot be written.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("forclip.search").joinpath("report.html").read_text(encoding="utf-8")
    thumbnails = EmbeddedThumbnails([parse_location(r.uri) for r in answer.results])
    request = answer.request
    facts = [f"{len(answer.results)} images", f"from {store}"]
    facts += [] if request.where is None else [f"where {request.where}"]
    facts += [f"refined by {len(request.right)} right and {len(request.wrong)} wrong"] if request.is_refined else []
    tiles = []
    for k, result in enumerate(answer.results):
        probability, decided_by = answer.probability(result), ""
        score = f"{result.score:.3f}" if probability is None else f"{probability:.0%} ({result.score:.3f})"
        if isinstance(result, CombinedResult):
            score, decided_by = f"normalised score {result.normalised_score:.2f}", request.wanted[result.decided_by]
        picture = parse_location(result.uri)
        shown = thumbnails.picture(picture, picture.name, f"rank {result.rank}", result.box)
        label = "" if answer.labels is None else LABEL_MARKS[answer.labels.relevant[k]]
        tiles.append((result.rank, shown, score, label, decided_by, without_range(result.uri)))
    curve = None
    if answer.confidence is not None and len(answer.confidence.expected_precision) > 1:
        percent = tuple((100 * answer.confidence.expected_precision).tolist())
        ranks = tuple(float(rank) for rank in range(1, len(percent) + 1))
        curve = line_chart(Curve("expected precision, %", ranks, percent, "rank"))
    html = environment.from_string(source).render(
        label=request.label,
        facts=facts,
        sentences=describe_answer(answer),
        curve=curve,
        thumbnails=thumbnails,
        tiles=tiles,
    )
    write_text_atomically(path, html)
