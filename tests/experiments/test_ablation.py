"""The ablation's bookkeeping with a measure that trains nothing, and once the whole path on a tiny toy world."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from forclip.cli import app
from forclip.config import DataConfig, RunConfig, SourceConfig, TrainConfig
from forclip.experiments import ablation
from forclip.experiments.ablation import (
    ABLATIONS,
    AblationDataset,
    Changes,
    changed,
    choose_variants,
    config_dataset,
    describe_changes,
    known_variants,
    run_ablation,
)
from forclip.experiments.ablation_report import Entry, bar_figure, markdown, summarise_entries

KNOWN: dict[str, Changes] = {
    "for": {},
    "bare": {"train": {"class_vectors": 0.0}},
    "few": {"head": {"num_query_tokens": 5}},
}


def ground(epochs: int = 10) -> AblationDataset:
    source = SourceConfig(Path("a.json"), Path("a"))

    def config(seed: int) -> RunConfig:
        return RunConfig(DataConfig(source), train=TrainConfig(seed=seed, epochs=epochs))

    return AblationDataset("small", config, lambda seed: {"world": seed}, lambda seed, track: None)


class FakeBench:
    """base: 50 + seed; novel: the number of query tokens. Notes what was asked for."""

    def __init__(self, asked: list[tuple[str, int]], seed: int, refused: Sequence[str]) -> None:
        self.asked, self.seed, self.refused = asked, seed, refused

    def baselines(self) -> list[Entry]:
        self.asked.append(("baselines", self.seed))
        return [self._entry("global", 20.0, 10.0), self._entry("dense", 30.0, 15.0)]

    def variant(self, name: str, config: RunConfig) -> Entry:
        assert config.train.seed == self.seed
        if name in self.refused:
            raise ValueError("there is nothing to train on")
        self.asked.append((name, self.seed))
        return self._entry(name, 50.0 + self.seed, config.head.num_query_tokens)

    def _entry(self, name: str, base: float, novel: float) -> Entry:
        return {"name": name, "base": base, "novel": novel, "all": base, "choices": None, "seconds": 1.0}


def ablate(out: Path, seeds: Sequence[int] = (0, 1), epochs: int = 10, **options: Any) -> list[tuple[str, int]]:
    """Returns what was measured."""
    asked: list[tuple[str, int]] = []
    only, refused = options.get("only", list(KNOWN)), options.get("refused", ())

    def bench(ground: AblationDataset, seed: int, console: Console) -> FakeBench:
        return FakeBench(asked, seed, refused)

    known = options.get("known", KNOWN)
    run_ablation(ground(epochs), known, only, seeds, out, "forclip ablate", Console(quiet=True), bench)
    return asked


def test_what_is_measured_is_skipped(tmp_path: Path) -> None:
    first = ablate(tmp_path, seeds=[0], only=["for"])
    assert first == [("baselines", 0), ("for", 0)]
    assert ablate(tmp_path, seeds=[0, 1]) == [
        ("bare", 0),
        ("few", 0),
        ("baselines", 1),
        ("for", 1),
        ("bare", 1),
        ("few", 1),
    ]
    assert ablate(tmp_path, seeds=[0, 1]) == []
    other = {**KNOWN, "few": {"head": {"num_query_tokens": 6}}}
    assert ablate(tmp_path, seeds=[1], known=other) == [("few", 1)]
    assert ablate(tmp_path, seeds=[1], epochs=9, only=["bare"]) == [("bare", 1)]  # baselines don't depend on epochs


def test_each_result_is_on_disk_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(bench: FakeBench, name: str, config: RunConfig) -> Entry:
        if name == "few":
            raise KeyboardInterrupt
        return bench._entry(name, 1.0, 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(FakeBench, "variant", killed)
        with pytest.raises(KeyboardInterrupt):
            ablate(tmp_path, seeds=[0])
    assert ablate(tmp_path, seeds=[0]) == [("few", 0)]


def test_one_that_cannot_be_trained_does_not_stop_the_others(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 could not be measured: bare \(seed 0\): there is nothing"):
        ablate(tmp_path, seeds=[0], refused=["bare"])
    summary = json.loads((tmp_path / "ablation.json").read_text())["summary"]
    assert list(summary) == ["global", "dense", "for", "few"]
    assert ablate(tmp_path, seeds=[0]) == [("bare", 0)]


def test_what_the_files_hold(tmp_path: Path) -> None:
    ablate(tmp_path)
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert content["settings"]["train"]["epochs"] == 10
    assert content["settings"]["data"] == {"world": 0}
    assert content["variants"]["few"] == {"head": {"num_query_tokens": 5}}
    assert {"command": "forclip ablate", "metric": "map_at_50/min(50,R)", "seeds": [0, 1]}.items() <= content.items()
    few = content["summary"]["few"]
    assert few["values"]["base"] == {"mean": 50.5, "std": pytest.approx(0.5**0.5)}
    assert few["differences"]["novel"] == {"mean": -20.0, "std": 0.0}
    assert (tmp_path / "ablation.png").read_bytes()[:4] == b"\x89PNG"


def test_results_of_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    ablate(tmp_path, seeds=[0])
    ablate(tmp_path, seeds=[0], epochs=9, only=["for"])
    content = json.loads((tmp_path / "ablation.json").read_text())
    assert list(content["summary"]) == ["global", "dense", "for"]
    assert len(content["runs"]) == 5  # yet nothing is thrown away


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ablation.json").write_text('{"runs": [3]}')
    with pytest.raises(ValueError, match="not readable as the results"):
        ablate(tmp_path)
    assert (tmp_path / "ablation.json").read_text() == '{"runs": [3]}'


def entry(name: str, seed: int, base: float, novel: float | None, kind: str = "variant") -> Entry:
    return {"name": name, "kind": kind, "seed": seed, "base": base, "novel": novel, "all": base}


def test_the_table() -> None:
    """Golden, worked by hand: seed 2 has no `for`, so it enters no difference."""
    entries = [
        entry("for", 0, 50.0, 30.0),
        entry("for", 1, 54.0, 32.0),
        entry("bare", 0, 49.0, 31.0),
        entry("bare", 1, 51.0, 33.0),
        entry("bare", 2, 60.0, None),
        entry("global", 0, 20.0, None, "baseline"),
    ]
    rows = summarise_entries(entries, {"global": "CLIP", "for": "-", "bare": "a|b", "never": ""})
    page = markdown(rows, "small", "forclip ablate", ["abc"])
    assert page.splitlines()[4:] == [
        "    forclip ablate",
        "",
        "Commit: abc.",
        "",
        "| name | changes | base | novel | all | base over `for` | novel over `for` | seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        "| `global` | CLIP | 20.0 | – | 20.0 | -30.0 | – | 1 |",  # noqa: RUF001  # the dash for no value
        "| **`for`** | - | 52.0 ± 2.8 | 31.0 ± 1.4 | 52.0 |  |  | 2 |",
        "| `bare` | a\\|b | 53.3 ± 5.9 | 32.0 ± 1.4 | 53.3 | -2.0 ± 1.4 | +1.0 | 3 |",
    ]


def test_the_chart_has_a_bar_for_each_value() -> None:
    rows = summarise_entries(
        [entry("global", 0, 20.0, None, "baseline"), entry("for", 0, 50.0, 30.0)], {"global": "", "for": ""}
    )
    axes = bar_figure(rows, "small").axes[0]
    widths = [bar.get_width() for bars in axes.containers for bar in getattr(bars, "patches", [])]
    assert sorted(widths) == [20.0, 30.0, 50.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["global", "for (default)"]


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_variant_is_a_configuration_of_its_own(name: str) -> None:
    config = ground(TrainConfig().epochs).config(0)
    others = [changed(config, other, ABLATIONS[other]) for other in ABLATIONS if other != name]
    assert changed(config, name, ABLATIONS[name]) not in others


def test_changes_in_words() -> None:
    assert describe_changes(ABLATIONS["random_texts"]) == "random_text_weight 0.01, pseudo_weight 0"
    assert describe_changes(ABLATIONS["noise_queries"]) == "seeding noise"


def test_variants_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "variants.yaml"
    file.write_text(yaml.safe_dump({"softer": {"train": {"set_weight": 0.05}}, "tiny": {"head": {}}}))
    known, names = known_variants(file, [])
    assert names == ["for", "softer", "tiny"]
    assert known["softer"] == {"train": {"set_weight": 0.05}}
    assert known_variants(file, ["ema", "softer"])[1] == ["ema", "softer"]
    assert known_variants(None, [])[1] == list(ABLATIONS)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[1, 2]", "must map names"),
        ("a: {body: {}}", "'a'"),
        ("a: 3", "'a'"),
        ("a: {train: {set_wait: 1}}", "set_wait"),
        ("a: {train: {set_weight: -1}}", "set_weight"),
        ("a: {head: {seeding: chance}}", "seeding"),
        ("a: {train: {seed: 3}}", "seed"),
        ("global: {}", "baseline"),
        ("a: {", "not readable"),
    ],
)
def test_mistakes_in_variants(tmp_path: Path, content: str, named: str) -> None:
    file = tmp_path / "variants.yaml"
    file.write_text(content)
    result = CliRunner().invoke(app, ["ablate", "--out", str(tmp_path / "never"), "--variants", str(file)])
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "never").exists()


def test_a_config_keeps_its_own_settings() -> None:
    """Each seed has the same data; a variant changes its own setting and leaves the rest as the config has it."""
    config = RunConfig(DataConfig(SourceConfig(Path("photos.json"), Path("a"))), train=TrainConfig(epochs=3, seed=9))
    own = config_dataset(config)
    assert own.name == "photos"
    assert own.data(0) == own.data(1)
    for name, epochs, vectors in (("for", 3, TrainConfig().class_vectors), ("no_class_vectors", 3, 0.0)):
        train = changed(own.config(4), name, ABLATIONS[name]).train
        assert (train.seed, train.epochs, train.class_vectors) == (4, epochs, vectors)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'fro' is unknown: for, bare, few"):
        choose_variants(KNOWN, ["for", "fro"])


def test_the_whole_path_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views and another cut are encoded for the variants that need them; the second time nothing is encoded at all."""
    quick = {"epochs": 1, "held_back_folds": 0, "teacher": "none"}
    file = tmp_path / "variants.yaml"
    staged = {"train": quick, "model": {"train_last_stage": True}}
    variants = {"quick": {"train": quick}, "views": {"train": {**quick, "views": 2}}, "staged": staged}
    file.write_text(yaml.safe_dump(variants, sort_keys=False))
    sizes = ["--train-images", "24", "--gallery-images", "24", "--seeds", "1"]
    given = ["ablate", "--out", str(tmp_path / "out"), "--variants", str(file), "--only", "quick,views,staged", *sizes]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "ablation.json").read_text())
    names = ["global", "dense", "cluster_5", "cluster_10", "cluster_25", "sum_untrained", *variants]
    assert list(content["summary"]) == names
    assert content["runs"][-1]["choices"]["share"] == 0.5
    monkeypatch.setattr(ablation, "load_task", None)  # would fail if it were asked for
    assert CliRunner().invoke(app, given).exit_code == 0


@pytest.mark.parametrize(
    ("seeds", "title"), [((1, 1), "small, 1 seed"), ((3, 3), "small, 3 seeds"), ((3, 1), "small, 1 to 3 seeds")]
)
def test_the_chart_says_over_how_many_seeds(seeds: tuple[int, int], title: str) -> None:
    entries = [entry(n, s, 50.0, 30.0) for n, count in zip(("for", "bare"), seeds, strict=True) for s in range(count)]
    rows = summarise_entries(entries, {"for": "", "bare": ""})
    assert bar_figure(rows, "small").axes[0].get_title(loc="left") == title
