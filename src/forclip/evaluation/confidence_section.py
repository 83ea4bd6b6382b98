"""What metrics.json says of a method's probabilities, in words, as a table and as reliability diagrams."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from forclip.evaluation.charts import reliability_chart
from forclip.evaluation.confidence import SIDES, read_reliability
from forclip.evaluation.methods import FOR
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.reliability import PAIRS, Pairs

_KINDS: dict[Pairs, str] = {
    "top 50": "each class's 50 best images",
    "above 0.05": "images with a probability above 0.05",
    "all": "all images, nearly all of them easy",
}
_DRAWN: Pairs = "top 50"


@dataclass(frozen=True)
class ConfidenceSection:
    """sides: those with a class; rows: a measure and its value for each side; charts: title and diagram."""

    sides: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    charts: tuple[tuple[str, Markup], ...]


def confidence_section(metrics: Metrics) -> ConfidenceSection | None:
    """Of FOR, which alone has probabilities; None where it has none."""
    found = metrics["methods"].get(FOR, {}).get("confidence")
    if found is None:
        return None
    sides = tuple(side for side in SIDES if side in found)
    rows = tuple((label, tuple(cell(found[side]) for side in sides)) for label, cell in _measures(found))
    charts = tuple(
        (f"{side} classes", reliability_chart(side, read_reliability(found[side]["pairs"][_DRAWN]["reliability"])))
        for side in sides
    )
    return ConfidenceSection(sides, rows, charts)


def confidence_line(metrics: Metrics) -> str | None:
    """The errors in one line, for a terminal."""
    found = metrics["methods"].get(FOR, {}).get("confidence")
    if found is None:
        return None
    parts = [
        f"{' / '.join(_error(found[side]['pairs'][kind]) for side in SIDES if side in found)} over {_KINDS[kind]}"
        for kind in PAIRS[:2]
    ]
    sides = " / ".join(side for side in SIDES if side in found)
    return f"FOR's probabilities are off (ECE, {sides}) by {', '.join(parts)}"


def _measures(found: dict[str, Any]) -> list[tuple[str, Callable[[dict[str, Any]], str]]]:
    """What each row says, and how it is read off a side."""
    wanted, said = _percent(found["wanted_precision"]), "(in brackets: of their share of right ones, said every time)"
    return [
        *((f"ECE, {_KINDS[kind]}", lambda side, kind=kind: _error(side["pairs"][kind])) for kind in PAIRS),
        *(
            (f"Brier score, {_KINDS[kind]} {said}", lambda side, kind=kind: _brier(side["pairs"][kind]))
            for kind in PAIRS[:2]
        ),
        (f"classes with a list of at least {wanted} expected precision", lambda side: _percent(side["kept_classes"])),
        ("of the images in these lists, right", lambda side: _percent(side["kept_precision"])),
        ("of all right images, in these lists", lambda side: _percent(side["kept_recall"])),
        ("factor by which the expected number of images is off, median (of guessing the base rate)", _factors),
        ("classes called absent that are there", lambda side: _percent(side["false_alarms"])),
        ("classes called absent once their images are taken out", lambda side: _percent(side["caught"])),
    ]


def _error(pairs: dict[str, Any]) -> str:
    if pairs["ece"] is None:
        return "\N{EN DASH}"
    return f"{pairs['ece']:.3f}" + (f" ± {pairs['ece_std']:.3f}" if pairs["ece_std"] else "")


def _brier(pairs: dict[str, Any]) -> str:
    return "\N{EN DASH}" if pairs["brier"] is None else f"{pairs['brier']:.3f} ({pairs['brier_of_rate']:.3f})"


def _percent(share: float | None) -> str:
    return "\N{EN DASH}" if share is None else f"{100 * share:.0f} %"


def _factors(side: dict[str, Any]) -> str:
    if side["count_factor"] is None:
        return "\N{EN DASH}"
    return f"{side['count_factor']:.2f} ({side['count_factor_of_rate']:.2f})"
