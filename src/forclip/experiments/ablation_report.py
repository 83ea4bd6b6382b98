"""Summarise an ablation: means and spread over seeds, differences to the default, a table and a chart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Column, Table
from rich.text import Text

from forclip.evaluation.methods import FOR, format_value
from forclip.evaluation.protocol import GROUPS

Entry = dict[str, Any]  # one of the runs in ablation.json: one name and one seed

_COLOURS = {"base": "#4477aa", "novel": "#ee7733"}
_DEFAULT = "#fff3c4"


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and sample standard deviation (0 for one seed), in percent or percent points."""

    mean: float
    std: float


@dataclass(frozen=True)
class Row:
    """The results of one name.

    kind: baseline or variant. values: mAP by group. differences: to the default by group, paired by seed, over the
    seeds that both have. None for a group without a value. passes: of the image tower for an image; ms_per_image: the
    mean time to embed an image, None where it was not measured.
    """

    name: str
    kind: str
    changes: str
    seeds: tuple[int, ...]
    values: dict[str, Spread | None]
    differences: dict[str, Spread | None]
    passes: int = 1
    ms_per_image: float | None = None


def summarise_entries(entries: Sequence[Entry], labels: Mapping[str, str]) -> list[Row]:
    """Return a row for each name. entries: at most one for a name and a seed; labels: changes by name, in row order."""
    default = {entry["seed"]: entry for entry in entries if entry["name"] == FOR}
    rows = []
    for name, changes in labels.items():
        runs = sorted((entry for entry in entries if entry["name"] == name), key=lambda entry: int(entry["seed"]))
        if runs:
            paired = [(entry, default[entry["seed"]]) for entry in runs if entry["seed"] in default]
            values = {str(g): _spread([e[g] for e in runs if e[g] is not None]) for g in GROUPS}
            differences = {
                str(g): _spread([a[g] - b[g] for a, b in paired if None not in (a[g], b[g])]) for g in GROUPS
            }
            times = [e["ms_per_image"] for e in runs if e.get("ms_per_image") is not None]
            cost = runs[0].get("passes", 1), float(np.mean(times)) if times else None
            rows.append(Row(name, runs[0]["kind"], changes, tuple(e["seed"] for e in runs), values, differences, *cost))
    return rows


def _spread(values: Sequence[float]) -> Spread | None:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return Spread(float(np.mean(values)), std) if values else None


def markdown(rows: Sequence[Row], dataset: str, command: str, commits: Sequence[str]) -> str:
    """Return a Markdown page with the table, the units, the command and the commits."""
    columns = ("name", "changes", *GROUPS, f"base over `{FOR}`", f"novel over `{FOR}`", "passes", "ms / image", "seeds")
    lines = [
        f"# Ablation: {dataset}",
        "",
        "mAP@50 in percent: mean over seeds ± sample standard deviation. Differences are in percent points, paired by "
        "seed. The first rows need no training. Passes of the image tower and milliseconds are for one image.",
        "",
        f"    {command}",
        "",
        *([f"Commit: {', '.join(commits)}.", ""] if commits else []),
        f"| {' | '.join(columns)} |",
        f"|---|---|{'---:|' * (len(columns) - 2)}",
    ]
    for row in rows:
        name = f"**`{row.name}`**" if row.name == FOR else f"`{row.name}`"
        changes = row.changes.replace("|", "\\|")
        lines.append(f"| {' | '.join([name, changes, *_cells(row)])} |")
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    """Return base, novel, all, the differences of base and novel to the default, passes, ms, and number of seeds."""
    base, novel, overall = (row.values[group] for group in ("base", "novel", "all"))
    differences = [_shown(row.differences[group], signed=True) for group in ("base", "novel")]
    if row.name == FOR:
        differences = ["", ""]
    mean = format_value(overall.mean if overall else None)
    cost = str(row.passes), format_value(row.ms_per_image)
    return [_shown(base), _shown(novel), mean, *differences, *cost, str(len(row.seeds))]


def _shown(value: Spread | None, signed: bool = False) -> str:
    if value is None:
        return format_value(None)
    # Adding 0 avoids -0.0.
    mean = f"{round(value.mean, 1) + 0.0:+.1f}" if signed else format_value(value.mean)
    return f"{mean} ± {value.std:.1f}" if value.std else mean


def ablation_table(rows: Sequence[Row], dataset: str) -> Table:
    """Return a terminal table, the default in bold, baselines dim. The page shows also what each name changes."""
    headers = ("base", "novel", f"base\nover {FOR}", f"novel\nover {FOR}", "passes", "ms")
    columns = [Column("name", no_wrap=True), *(Column(h, justify="right", no_wrap=True) for h in headers)]
    title = Text(f"{dataset}: mAP@50 in percent")
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True
    for row in rows:
        style = "bold" if row.name == FOR else "dim" if row.kind == "baseline" else ""
        base, novel, _, *others, _ = _cells(row)
        table.add_row(Text(row.name), base, novel, *others, style=style)
    return table


def bar_figure(rows: Sequence[Row], dataset: str) -> Figure:
    """Plot horizontal bars: baselines pale, the default on a band with lines at its values."""
    figure = Figure(figsize=(8, 1.6 + 0.4 * len(rows)), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for group, offset in (("base", -0.2), ("novel", 0.2)):
        for kind, suffix, alpha in (("baseline", ", training-free", 0.45), ("variant", "", 1.0)):
            bars = [(y + offset, s) for y, r in enumerate(rows) if r.kind == kind and (s := r.values[group])]
            if bars:
                ys, means = [y for y, _ in bars], [spread.mean for _, spread in bars]
                axes.barh(ys, means, 0.36, color=_COLOURS[group], alpha=alpha, label=f"{group} classes{suffix}")
            for y, spread in bars:
                if spread.std:
                    axes.errorbar(spread.mean, y, xerr=spread.std, color="#222222", elinewidth=1.0, capsize=2)
    for y, row in enumerate(rows):
        if row.name == FOR:
            axes.axhspan(y - 0.5, y + 0.5, color=_DEFAULT, zorder=0)
            for group, colour in _COLOURS.items():
                if (value := row.values[group]) is not None:
                    axes.axvline(value.mean, color=colour, linestyle="--", linewidth=0.9, zorder=1)
    ticks = axes.set_yticks(range(len(rows)), [f"{r.name} (default)" if r.name == FOR else r.name for r in rows])
    for tick, row in zip(ticks, rows, strict=True):
        tick.label1.set_fontweight("bold" if row.name == FOR else "normal")
        tick.label1.set_color("#777777" if row.kind == "baseline" else "black")
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    fewest, most = (count(len(row.seeds) for row in rows) for count in (min, max))
    axes.set_xlabel(f"mAP@50 (%){', whiskers: standard deviation over seeds' if most > 1 else ''}")
    seeds = str(most) if fewest == most else f"{fewest} to {most}"
    axes.set_title(f"{dataset}, {seeds} seed{'' if most == 1 else 's'}", loc="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure
