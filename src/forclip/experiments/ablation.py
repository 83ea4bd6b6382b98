"""Measure what each part contributes: variants of the recipe over several seeds, saved as soon as measured.

A variant is the default recipe with one thing changed.
"""

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

import forclip
from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig, RunConfig, config_to_json, plain_message, read_yaml
from forclip.evaluation.methods import FOR, display_name
from forclip.evaluation.metrics import AP_DEPTH
from forclip.evaluation.protocol import GROUPS, metric_name
from forclip.experiments.ablation_report import Entry, Row, ablation_table, bar_figure, markdown, summarise_entries
from forclip.experiments.comparison import MethodResult, Task, finetune_on, measure, measure_training_free
from forclip.experiments.demo import toyworld_config
from forclip.experiments.evaluate import load_task
from forclip.progress import Track, console_for_results, portion, tracking
from forclip.toyworld.dataset import ToyWorld, novel_names, write_toyworld
from forclip.training.runs import create_folder, load_backbone

Settings = dict[str, Any]  # everything that a result depends on besides the code, as plain JSON values
Changes = Mapping[str, Mapping[str, Any]]  # settings by section (model, head or train)
_SECTIONS = ("model", "head", "train")

ABLATIONS: dict[str, Changes] = {
    "for": {},
    "for_tiles_3x3": {"model": {"tiles": "3x3"}},
    "for_tiles_3x3_last_stage": {"model": {"tiles": "3x3", "train_last_stage": True}},
    # Parts left out.
    "no_class_vectors": {"train": {"class_vectors": 0.0}},
    "no_share": {"head": {"pooled_share": 0.0}},
    "no_alignment": {"head": {"alignment": "off"}},
    "no_base_labels": {"train": {"base_weight": 0.0, "teacher": "zoom"}},
    "no_trials": {"train": {"held_back_folds": 0}},
    "no_interpolation": {"train": {"interpolation": 1.0}},
    # One teacher, instead of the choice.
    "no_teacher": {"train": {"teacher": "none"}},
    "start_teacher": {"train": {"teacher": "start"}},
    "cluster_teacher": {"train": {"teacher": "cluster"}},
    "zoom_teacher": {"train": {"teacher": "zoom"}},
    # Parts in another form.
    "softmax_loss": {"train": {"base_loss": "softmax"}},
    "noise_queries": {"head": {"seeding": "noise"}},
    "queries_5": {"head": {"num_query_tokens": 5}},
    "queries_10": {"head": {"num_query_tokens": 10}},
    "queries_50": {"head": {"num_query_tokens": 50}},
    "train_queries_only": {"train": {"trainable": "queries"}},
    "train_query_key": {"train": {"trainable": "query_key"}},
    "step_half": {"train": {"step_size": 0.04}},
    "step_double": {"train": {"step_size": 0.16}},
    "views_1": {"train": {"views": 1}},
    "last_stage": {"model": {"train_last_stage": True}},
    # Fewer labels.
    "labels_10": {"train": {"labelled_fraction": 0.1}},
    "labels_1": {"train": {"labelled_fraction": 0.01}},
    "labels_10_no_guesses": {"train": {"labelled_fraction": 0.1, "self_training": False}},
}


def select_variants(file: Path | None, names: Sequence[str]) -> tuple[dict[str, Changes], list[str]]:
    """Return the built-in variants with those of the file, and the names to measure.

    file: YAML, `name: {section: {setting: value}}`. Without `names`, all built-in variants are measured, or `for` and
    the variants of the file. Raises ValueError for a file that cannot be read, naming the variant, and for an unknown
    name.
    """
    from_file: dict[str, Changes] = {}
    if file is not None:
        content = read_yaml(file, "file of variants")
        if not isinstance(content, dict) or not content:
            raise ValueError(f"{file}: must map names to changes, such as `softer: {{train: {{set_weight: 0.05}}}}`")
        for name, changes in content.items():
            sections = changes if isinstance(changes, dict) else {"": None}
            if not set(sections) <= {*_SECTIONS} or not all(isinstance(s, dict) for s in sections.values()):
                needed = ", ".join(_SECTIONS)
                raise ValueError(f"{file}: variant {name!r} needs settings under {needed}, not {changes!r}")
            from_file[str(name)] = changes
    variants = {**ABLATIONS, **from_file}
    for name in names:
        if name not in variants:
            raise ValueError(f"variant {name!r} is unknown: {', '.join(variants)}")
    return variants, list(names) or (list(variants) if file is None else list(dict.fromkeys([FOR, *from_file])))


def apply_changes(config: RunConfig, name: str, changes: Changes) -> RunConfig:
    """Return the variant's configuration. Raises ValueError for a name that is taken or a setting that is invalid."""
    if name != FOR and display_name(name) != name:
        raise ValueError(f"variant {name!r}: this is the name of a baseline")
    if "seed" in changes.get("train", {}):
        raise ValueError(f"variant {name!r}: seed cannot be changed, all variants run with the same seeds")
    try:
        return replace(config, **{section: replace(getattr(config, section), **s) for section, s in changes.items()})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"variant {name!r}: {key}: {plain_message(first['msg'])}") from None
    except TypeError as error:
        raise ValueError(f"variant {name!r}: {error}") from None


def describe_changes(changes: Changes) -> str:
    """Describe changes as in `teacher none`; a dash if there are none."""
    settings = (setting for section in changes.values() for setting in section.items())
    texts = (f"{key} {f'{value:g}' if isinstance(value, float) else value}" for key, value in settings)
    return ", ".join(texts) or "\N{EN DASH}"


@dataclass(frozen=True)
class AblationDataset:
    """The data that variants are measured on.

    config: returns a seed's unchanged configuration. data: describes a seed's images and classes, as plain JSON values.
    prepare: generates a seed's files, if they are generated.
    """

    name: str
    config: Callable[[int], RunConfig]
    data: Callable[[int], dict[str, Any]]
    prepare: Callable[[int, Track], None]

    def settings(self, config: RunConfig, seed: int) -> Settings:
        """Return the settings of a variant."""
        content = config_to_json(config)
        return {**{part: content[part] for part in ("model", "head", "train", "eval")}, "data": self.data(seed)}

    def baseline_settings(self, seed: int) -> Settings:
        """Return the settings of the baselines, which do not depend on the training."""
        return {part: v for part, v in self.settings(self.config(seed), seed).items() if part != "train"}


def toyworld_dataset(folder: Path, num_train: int, num_gallery: int) -> AblationDataset:
    """Return a toy world and split for each seed, in subfolders. A small one need not show every class."""

    def config(seed: int) -> RunConfig:
        run = toyworld_config(ToyWorld(folder / f"world-{seed}", novel_names(seed)), seed)
        return replace(run, data=replace(run.data, allow_unlabelled_base=True))

    def data(seed: int) -> dict[str, Any]:
        return {"toy world": seed, "train_images": num_train, "gallery_images": num_gallery}

    def prepare(seed: int, track: Track) -> None:
        advance = track(f"drawing the toy world of seed {seed}", num_train + num_gallery)
        write_toyworld(folder / f"world-{seed}", num_train, num_gallery, seed, advance)

    return AblationDataset("toy world", config, data, prepare)


def config_dataset(config: RunConfig) -> AblationDataset:
    """Return the same images and classes for every seed; the seed decides the training alone."""
    data = config_to_json(config.data)
    del data["cache"]  # it changes no result
    return AblationDataset(
        config.data.train.annotations.stem,
        lambda seed: replace(config, train=replace(config.train, seed=seed)),
        lambda seed: data,
        lambda seed, track: None,
    )


def run_ablation(
    dataset: AblationDataset,
    variants: Mapping[str, Changes],
    names: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    command: str,
    console: Console,
) -> list[Row]:
    """Measure what is missing in out/ablation.json, seed by seed, then write ablation.md and ablation.png.

    variants: all variants, shown if the log has them; names: those to measure. Raises ValueError for an invalid variant
    before any work, and for variants that could not be trained after all others are measured.
    """
    for name, changes in variants.items():
        apply_changes(dataset.config(seeds[0]), name, changes)
    about = {
        "dataset": dataset.name,
        "metric": metric_name(AP_DEPTH, "min(k,R)"),
        "command": command,
        "commit": source_commit(),
        "version": forclip.__version__,
        "seeds": list(seeds),
        "settings": dataset.settings(dataset.config(seeds[0]), seeds[0]),
        "variants": {name: dict(changes) for name, changes in variants.items()},
    }
    log = open_log(create_folder(out) / "ablation.json", about)
    failed = []
    with tracking(console) as track:
        for number, seed in enumerate(seeds):
            configs = {n: apply_changes(dataset.config(seed), n, variants[n]) for n in variants if n in names}
            with portion(number, len(seeds)):
                failed += _measure_seed(dataset, configs, seed, log, console, track)
    labels = {e["name"]: display_name(e["name"]) for e in log.entries if e["kind"] == "baseline"}
    labels |= {name: describe_changes(changes) for name, changes in variants.items()}
    # Entries with other settings stay in the log only.
    current = [e for e in log.entries if e["settings"] == _current_settings(dataset, variants, e)]
    rows = summarise_entries(current, labels)
    log.write(rows)
    commits = dict.fromkeys(entry["commit"] for entry in log.entries if entry.get("commit"))
    write_text_atomically(out / "ablation.md", markdown(rows, dataset.name, command, list(commits)))
    if rows:
        bar_figure(rows, dataset.name).savefig(out / "ablation.png")
    console_for_results(console).print(ablation_table(rows, dataset.name))
    if failed:
        raise ValueError(f"{len(failed)} could not be measured: {'; '.join(failed)}")
    return rows


@dataclass(frozen=True)
class AblationLog:
    """ablation.json. entries: at most one for a name and a seed. Every entry is on disk as soon as it is added."""

    file: Path
    about: dict[str, Any]
    entries: list[Entry]

    def has(self, name: str, seed: int, settings: Settings) -> bool:
        """Whether this was measured with exactly these settings."""
        return any((e["name"], e["seed"]) == (name, seed) and e["settings"] == settings for e in self.entries)

    def add(self, entry: Entry) -> None:
        """Add an entry in place of an older one of the same name and seed."""
        pair = (entry["name"], entry["seed"])
        self.entries[:] = [e for e in self.entries if (e["name"], e["seed"]) != pair] + [entry]
        self.write([])

    def write(self, rows: Sequence[Row]) -> None:
        """Write the file. rows: the summary, empty until everything is measured."""
        content = {**self.about, "summary": {row.name: asdict(row) for row in rows}, "runs": self.entries}
        write_text_atomically(self.file, json.dumps(content, indent=1, allow_nan=False) + "\n")


def open_log(file: Path, about: dict[str, Any]) -> AblationLog:
    """Continue an earlier log, or start one. Raises ValueError if the file is something else."""
    if not file.exists():
        return AblationLog(file, about, [])
    try:
        entries = json.loads(file.read_text())["runs"]
        for entry in entries:
            _ = [entry[key] for key in ("name", "kind", "seed", "settings", *GROUPS)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not readable as the results of an ablation: {error!r}") from None
    return AblationLog(file, about, entries)


def _measure_seed(
    dataset: AblationDataset,
    configs: Mapping[str, RunConfig],
    seed: int,
    log: AblationLog,
    console: Console,
    track: Track,
) -> list[str]:
    """Measure the variants that the log lacks. Returns those that could not be trained, with the reason."""
    baseline = dataset.baseline_settings(seed)
    has_baselines = any(e["kind"] == "baseline" and log.has(e["name"], seed, baseline) for e in log.entries)
    missing = {n: config for n, config in configs.items() if not log.has(n, seed, dataset.settings(config, seed))}
    if len(missing) < len(configs):
        console.print(f"seed {seed}: {len(configs) - len(missing)} of {len(configs)} variants were measured before")
    if has_baselines and not missing:
        return []
    dataset.prepare(seed, track)
    runner = SeedRunner(dataset.config(seed), console, {})
    common = {"seed": seed, "commit": log.about["commit"]}
    if not has_baselines:
        for entry in runner.measure_baselines():
            log.add({**entry, **common, "kind": "baseline", "settings": baseline})
    failed = []
    for count, (name, config) in enumerate(missing.items(), 1):
        try:
            entry = runner.measure_variant(name, config)
        except ValueError as error:
            failed.append(f"{name} (seed {seed}): {error}")
            continue
        log.add({**entry, **common, "kind": "variant", "settings": dataset.settings(config, seed)})
        values = ", ".join(f"{g} {entry[g]:.1f}" for g in ("base", "novel") if entry[g] is not None)
        message = f"seed {seed}, {count} of {len(missing)}: {name}: {values} ({entry['seconds']:.0f} s)"
        console.print(message, markup=False, highlight=False)
    return failed


def _current_settings(dataset: AblationDataset, variants: Mapping[str, Changes], entry: Entry) -> Settings | None:
    """Return the present settings of an entry's name, None if no variant has this name any more."""
    name, seed = entry["name"], entry["seed"]
    if entry["kind"] == "baseline":
        return dataset.baseline_settings(seed)
    if name not in variants:
        return None
    return dataset.settings(apply_changes(dataset.config(seed), name, variants[name]), seed)


def source_commit() -> str | None:
    """Return the commit of the checkout that this code is from, with `-dirty` for changed files, or None."""
    git = ["git", "-C", str(Path(forclip.__file__).parent)]
    try:
        # A package installed inside another project's checkout must not report that project's commit.
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, check=True)
        describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run([*git, *describe], capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@dataclass(frozen=True)
class SeedRunner:
    """Measures methods with one seed. Images are encoded when they are needed.

    tasks: by model and number of views; views of one model share the gallery.
    """

    config: RunConfig
    console: Console
    tasks: dict[tuple[ModelConfig, int | None], Task]

    def measure_baselines(self) -> list[Entry]:
        """Measure the training-free methods. Raises ValueError as `load_task` does."""
        task = self._task(self.config)
        start = time.perf_counter()
        config = self.config
        results = measure_training_free(task, config.head, config.eval, config.train.seed, cache=config.data.cache)
        seconds = (time.perf_counter() - start) / len(results)
        return [_entry(name, result, None, seconds) for name, result in results.items()]

    def measure_variant(self, name: str, config: RunConfig) -> Entry:
        """Train and measure. Raises ValueError if the variant cannot be trained."""
        task = self._task(config)
        start = time.perf_counter()
        finetuned = finetune_on(task, config.head, config.train)
        seed, tiles = config.train.seed, task.tiles
        result = measure(task, name, finetuned.head, seed, config.eval, finetuned.class_vectors, tiles=tiles)
        return _entry(name, result, finetuned.choices.to_json(), time.perf_counter() - start)

    def _task(self, config: RunConfig) -> Task:
        key = (config.model, config.train.views)
        if key not in self.tasks:
            with tracking(self.console) as track:
                self.tasks[key] = load_task(config, load_backbone(config), track, self.console)
        return self.tasks[key]


def _entry(name: str, result: MethodResult, choices: dict[str, Any] | None, seconds: float) -> Entry:
    """seconds: of finetuning, with the teacher, and evaluation."""
    means = result.run.report.means["min(k,R)"]
    return {
        "name": name,
        **{group: means[group] for group in ("base", "novel", "all")},
        "vectors_per_image": result.run.vectors_per_image,
        "passes": result.run.passes,
        "ms_per_image": result.run.ms_per_image,
        "choices": choices,
        "seconds": seconds,
    }
