"""The ablation with a fake measurement, and once for real on a tiny toy world."""

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
from forclip.experiments.ablation import ABLATIONS, AblationDataset, Changes, apply_changes, run_ablation
from forclip.experiments.ablation_report import Entry, bar_figure, markdown, summarise_entries

VARIANTS: dict[str, Changes] = {
    "for": {},
    "bare": {"train": {"class_vectors": 0.0}},
    "few": {"head": {"num_query_tokens": 5}},
}


def small_dataset(epochs: int = 10) -> AblationDataset:
    source = SourceConfig(Path("a.json"), Path("a"))

    def config(seed: int) -> RunConfig:
        return RunConfig(DataConfig(source), train=TrainConfig(seed=seed, epochs=epochs))

    return AblationDataset("small", config, lambda seed: {"world": seed}, lambda seed, track: None)


class FakeRunner:
    """Results: base is 50 + seed, novel the number of query tokens. Records what was measured."""

    def __init__(self, measured: list[tuple[str, int]], seed: int, refused: Sequence[str]) -> None:
        self.measured, self.seed, self.refused = measured, seed, refused

    def measure_baselines(self) -> list[Entry]:
        self.measured.append(("baselines", self.seed))
        return [self._entry("global", 20.0, 10.0), self._entry("dense", 30.0, 15.0)]

    def measure_variant(self, name: str, config: RunConfig) -> Entry:
        assert config.train.seed == self.seed
        if name in self.refused:
            raise ValueError("there is nothing to train on")
        self.measured.append((name, self.seed))
        return self._entry(name, 50.0 + self.seed, config.head.num_query_tokens)

    def _entry(self, name: str, base: float, novel: float) -> Entry:
        return {"name": name, "base": base, "novel": novel, "all": base, "choices": None, "seconds": 1.0}


def ablate(out: Path, seeds: Sequence[int] = (0, 1), epochs: int = 10, **options: Any) -> list[tuple[str, int]]:
    """Run an ablation and return what was measured."""
    measured: list[tuple[str, int]] = []
    only, refused = options.get("only", list(VARIANTS)), options.get("refused", ())

    def new_runner(config: RunConfig, console: Console, tasks: object) -> FakeRunner:
        return FakeRunner(measured, config.train.seed, refused)

    variants = options.get("variants", VARIANTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "SeedRunner", new_runner)
        run_ablation(small_dataset(epochs), variants, only, seeds, out, "forclip ablate", Console(quiet=True))
    return measured


def test_what_was_measured_before_is_skipped(tmp_path: Path) -> None:
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
    other = {**VARIANTS, "few": {"head": {"num_query_tokens": 6}}}
    assert ablate(tmp_path, seeds=[1], variants=other) == [("few", 1)]
    assert ablate(tmp_path, seeds=[1], epochs=9, only=["bare"]) == [("bare", 1)]  # baselines don't depend on epochs


def test_each_result_is_saved_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(runner: FakeRunner, name: str, config: RunConfig) -> Entry:
        if name == "few":
            raise KeyboardInterrupt
        return runner._entry(name, 1.0, 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(FakeRunner, "measure_variant", killed)
        with pytest.raises(KeyboardInterrupt):
            ablate(tmp_path, seeds=[0])
    assert ablate(tmp_path, seeds=[0]) == [("few", 0)]


def test_a_variant_that_cannot_be_trained_does_not_stop_the_others(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bare \(seed 0\): there is nothing"):
        ablate(tmp_path, seeds=[0], refused=["bare"])
    summary = json.loads((tmp_path / "ablation.json").read_text())["summary"]
    assert list(summary) == ["global", "dense", "for", "few"]
    assert ablate(tmp_path, seeds=[0]) == [("bare", 0)]


def test_the_files_hold_settings_results_and_summary(tmp_path: Path) -> None:
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
    assert len(content["runs"]) == 5  # nothing is removed from the log


def test_a_file_of_something_else_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "ablation.json").write_text('{"runs": [3]}')
    with pytest.raises(ValueError, match="not readable as the results"):
        ablate(tmp_path)
    assert (tmp_path / "ablation.json").read_text() == '{"runs": [3]}'


def entry(name: str, seed: int, base: float, novel: float | None, kind: str = "variant") -> Entry:
    return {"name": name, "kind": kind, "seed": seed, "base": base, "novel": novel, "all": base}


def test_the_table_worked_by_hand() -> None:
    """Seed 2 has no `for`, so it is in no difference."""
    entries = [
        {**entry("for", 0, 50.0, 30.0), "passes": 10, "ms_per_image": 3.0},
        {**entry("for", 1, 54.0, 32.0), "passes": 10, "ms_per_image": 4.0},
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
        "| name | changes | base | novel | all | base over `for` | novel over `for` | passes | ms / image | seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        "| `global` | CLIP | 20.0 | – | 20.0 | -30.0 | – | 1 | – | 1 |",  # noqa: RUF001  # the dash for no value
        "| **`for`** | - | 52.0 ± 2.8 | 31.0 ± 1.4 | 52.0 |  |  | 10 | 3.5 | 2 |",
        "| `bare` | a\\|b | 53.3 ± 5.9 | 32.0 ± 1.4 | 53.3 | -2.0 ± 1.4 | +1.0 | 1 | – | 3 |",  # noqa: RUF001
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
def test_every_variant_has_another_configuration(name: str) -> None:
    config = small_dataset(2).config(0)
    others = [apply_changes(config, other, ABLATIONS[other]) for other in ABLATIONS if other != name]
    assert apply_changes(config, name, ABLATIONS[name]) not in others


def test_changes_are_described() -> None:
    assert ablation.describe_changes(ABLATIONS["no_base_labels"]) == "base_weight 0, teacher zoom"
    assert ablation.describe_changes(ABLATIONS["noise_queries"]) == "seeding noise"


def test_variants_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "variants.yaml"
    file.write_text(yaml.safe_dump({"softer": {"train": {"set_weight": 0.05}}, "tiny": {"head": {}}}))
    variants, names = ablation.select_variants(file, [])
    assert names == ["for", "softer", "tiny"]
    assert variants["softer"] == {"train": {"set_weight": 0.05}}
    assert ablation.select_variants(file, ["last_stage", "softer"])[1] == ["last_stage", "softer"]
    assert ablation.select_variants(None, [])[1] == list(ABLATIONS)


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
def test_invalid_variants_are_named(tmp_path: Path, content: str, named: str) -> None:
    file = tmp_path / "variants.yaml"
    file.write_text(content)
    result = CliRunner().invoke(app, ["ablate", "--out", str(tmp_path / "never"), "--variants", str(file)])
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "never").exists()


def test_a_variant_of_a_config_changes_its_own_setting_only() -> None:
    """Each seed has the same data."""
    config = RunConfig(DataConfig(SourceConfig(Path("photos.json"), Path("a"))), train=TrainConfig(epochs=3, seed=9))
    dataset = ablation.config_dataset(config)
    assert dataset.name == "photos"
    assert dataset.data(0) == dataset.data(1)
    for name, epochs, vectors in (("for", 3, TrainConfig().class_vectors), ("no_class_vectors", 3, 0.0)):
        train = apply_changes(dataset.config(4), name, ABLATIONS[name]).train
        assert (train.seed, train.epochs, train.class_vectors) == (4, epochs, vectors)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'fro' is unknown: for, "):
        ablation.select_variants(None, ["for", "fro"])


def test_a_real_ablation_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variants with other views or another tower are encoded for them; a second run encodes nothing."""
    quick = {"epochs": 1, "held_back_folds": 0, "teacher": "none"}
    file = tmp_path / "variants.yaml"
    staged = {"train": quick, "model": {"train_last_stage": True}}
    tiled = {"train": quick, "model": {"tiles": "1x2"}}
    variants = {"quick": {"train": quick}, "views": {"train": {**quick, "views": 2}}, "tiled": tiled, "staged": staged}
    file.write_text(yaml.safe_dump(variants, sort_keys=False))
    sizes = ["--train-images", "24", "--gallery-images", "24", "--seeds", "1"]
    given = ["ablate", "--out", str(tmp_path / "out"), "--variants", str(file), "--only", ",".join(variants), *sizes]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "ablation.json").read_text())
    names = ["global", "dense", "cluster_5", "cluster_10", "cluster_25", "sum_untrained", "tiles_3x3", *variants]
    assert list(content["summary"]) == names
    assert content["runs"][-1]["choices"]["share"] == 0.5
    assert [content["summary"][name]["passes"] for name in ("global", "tiles_3x3", "views", "tiled")] == [1, 9, 1, 3]
    monkeypatch.setattr(ablation, "load_task", None)  # a call would fail
    assert CliRunner().invoke(app, given).exit_code == 0


@pytest.mark.parametrize(
    ("seeds", "title"), [((1, 1), "small, 1 seed"), ((3, 3), "small, 3 seeds"), ((3, 1), "small, 1 to 3 seeds")]
)
def test_the_chart_names_the_number_of_seeds(seeds: tuple[int, int], title: str) -> None:
    entries = [entry(n, s, 50.0, 30.0) for n, count in zip(("for", "bare"), seeds, strict=True) for s in range(count)]
    rows = summarise_entries(entries, {"for": "", "bare": ""})
    assert bar_figure(rows, "small").axes[0].get_title(loc="left") == title
