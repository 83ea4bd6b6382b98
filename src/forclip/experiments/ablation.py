"""The contribution of each part: the recipe with one thing changed at a time, over seeds, each kept once measured."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import ValidationError
from rich.console import Console

import forclip
from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig, RunConfig, config_to_json
from forclip.data.sets import load_sets
from forclip.evaluation.methods import FOR, display_name
from forclip.evaluation.protocol import GROUPS, metric_name
from forclip.experiments.ablation_report import Entry, Row, ablation_table, draw_rows, markdown, summarise_entries
from forclip.experiments.comparison import Measured, Task, finetune_on, measure, measure_training_free
from forclip.experiments.demo import toyworld_config
from forclip.experiments.evaluate import load_task
from forclip.progress import Track, tracking
from forclip.toyworld.dataset import ToyWorld, novel_names, write_toyworld
from forclip.training.finetune import TrainingImages
from forclip.training.runs import create_folder, encode_training_images, load_backbone

Changes = Mapping[str, Mapping[str, Any]]  # section (model, head or train) to settings, as a file of variants has them

ABLATIONS: dict[str, Changes] = {
    "for": {},
    # Parts left out.
    "no_class_vectors": {"train": {"class_vectors": 0.0}},
    "no_teacher": {"train": {"teacher": "none"}},
    "no_alignment": {"head": {"alignment": "off"}},
    "no_base_labels": {"train": {"base_weight": 0.0}},
    "no_interpolation": {"train": {"interpolation": 1.0}},
    "only_score_distillation": {"train": {"set_weight": 0.0}},
    "only_set_distillation": {"train": {"pseudo_weight": 0.0}},
    # Parts in another form.
    "cluster_teacher": {"train": {"teacher": "cluster"}},
    "random_texts": {"train": {"random_text_weight": 0.01, "pseudo_weight": 0.0}},
    "binary_loss": {"train": {"base_loss": "binary"}},
    "softmax_loss": {"train": {"base_loss": "softmax"}},
    "noise_queries": {"head": {"seeding": "noise"}},
    "cluster_queries": {"head": {"seeding": "clusters"}},
    "queries_5": {"head": {"num_query_tokens": 5}},
    "queries_10": {"head": {"num_query_tokens": 10}},
    "queries_50": {"head": {"num_query_tokens": 50}},
    "train_queries_only": {"train": {"trainable": "queries"}},
    "train_query_key": {"train": {"trainable": "query_key"}},
    # Parts added.
    "neighbour_words": {"train": {"neighbour_weight": 0.01}},
    "query_diversity": {"train": {"diversity_weight": 0.01}},
    "ema": {"train": {"ema_decay": 0.99}},
    "last_stage": {"model": {"train_last_stage": True}},
    "views_1": {"train": {"views": 1}},
    "epochs_10": {"train": {"epochs": 10}},
    # Fewer labels.
    "labels_10": {"train": {"labelled_fraction": 0.1}},
    "labels_5": {"train": {"labelled_fraction": 0.05}},
    "labels_1": {"train": {"labelled_fraction": 0.01}},
    "labels_10_no_teacher": {"train": {"labelled_fraction": 0.1, "teacher": "none"}},
    "labels_1_no_teacher": {"train": {"labelled_fraction": 0.01, "teacher": "none"}},
}


_FILE = "ablation.json"
_SECTIONS = ("model", "head", "train")
_METRIC = metric_name(50, "min(k,R)")


@dataclass(frozen=True)
class AblationDataset:
    """What variants are measured on. config: a seed's run, unchanged; data: what of it says which images and classes,
    as plain JSON values; prepare: makes a seed's files where they are generated."""

    name: str
    config: Callable[[int], RunConfig]
    data: Callable[[int], dict[str, Any]]
    prepare: Callable[[int, Track], None]


class SeedMeasurements(Protocol):
    """One seed, ready to measure."""

    def baselines(self) -> list[Entry]:
        """The training-free methods."""

    def variant(self, name: str, config: RunConfig) -> Entry:
        """Trains and measures. Raises ValueError where that can't be trained."""


def toyworld_dataset(folder: Path, num_train: int, num_gallery: int) -> AblationDataset:
    """Another toy world and split for each seed, below the folder. A small one need not show every class."""

    def config(seed: int) -> RunConfig:
        run = toyworld_config(ToyWorld(folder / f"world-{seed}", novel_names(seed)), seed)
        return replace(run, data=replace(run.data, allow_unlabelled_base=True))

    def data(seed: int) -> dict[str, Any]:
        return {"toy world": seed, "train_images": num_train, "gallery_images": num_gallery}

    def prepare(seed: int, track: Track) -> None:
        drawn = track(f"drawing the toy world of seed {seed}", num_train + num_gallery)
        write_toyworld(folder / f"world-{seed}", num_train, num_gallery, seed, drawn)

    return AblationDataset("toy world", config, data, prepare)


def config_dataset(config: RunConfig) -> AblationDataset:
    """The same images and classes for each seed, which sets the training alone."""
    data = config_to_json(config.data)
    del data["cache"]  # it changes no number
    return AblationDataset(
        config.data.train.annotations.stem,
        lambda seed: replace(config, train=replace(config.train, seed=seed)),
        lambda seed: data,
        lambda seed, track: None,
    )


def read_variants(file: Path) -> dict[str, Changes]:
    """YAML: `name: {section: {setting: value}}`, with sections head, train, model. Raises ValueError naming file and
    variant."""
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file}: not readable as YAML: {error}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{file}: must map names to changes, such as `softer: {{train: {{set_weight: 0.05}}}}`")
    return {str(name): _changes(file, name, given) for name, given in content.items()}


def _changes(file: Path, name: object, given: object) -> Changes:
    sections: dict[str, Any] = given if isinstance(given, dict) else {"": given}
    if not set(sections) <= {*_SECTIONS} or not all(isinstance(s, dict) for s in sections.values()):
        raise ValueError(f"{file}: variant {name!r} must have settings under {', '.join(_SECTIONS)}, not {given!r}")
    return sections


def choose_variants(known: Mapping[str, Changes], only: Sequence[str]) -> dict[str, Changes]:
    """Those named, in the order of the known ones. Raises ValueError for an unknown name."""
    for name in only:
        if name not in known:
            raise ValueError(f"variant {name!r} is unknown: {', '.join(known)}")
    return {name: changes for name, changes in known.items() if name in only}


def changed(config: RunConfig, name: str, changes: Changes) -> RunConfig:
    """Raises ValueError, naming the variant, for a setting that does not exist or a value that it refuses."""
    if name != FOR and display_name(name) != name:
        raise ValueError(f"variant {name!r}: this is a baseline's name")
    if "seed" in changes.get("train", {}):
        raise ValueError(f"variant {name!r}: seed is no setting of a variant: all run with the same seeds")
    try:
        return replace(config, **{section: replace(getattr(config, section), **s) for section, s in changes.items()})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"variant {name!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except TypeError as error:
        raise ValueError(f"variant {name!r}: {error}") from None


def describe_changes(changes: Changes) -> str:
    """`teacher none`, or a dash for no change at all."""
    settings = (setting for section in changes.values() for setting in section.items())
    told = (f"{key} {f'{value:g}' if isinstance(value, float) else value}" for key, value in settings)
    return ", ".join(told) or "\N{EN DASH}"


@dataclass(frozen=True)
class Log:
    """ablation.json. entries: at most one for a name and a seed; what is added is on disk at once."""

    file: Path
    about: dict[str, Any]
    entries: list[Entry]

    def find(self, name: str, seed: int, settings: dict[str, Any]) -> Entry | None:
        """What was measured with just these settings."""
        found = (e for e in self.entries if (e["name"], e["seed"]) == (name, seed) and e["settings"] == settings)
        return next(found, None)

    def add(self, entry: Entry) -> None:
        pair = (entry["name"], entry["seed"])
        self.entries[:] = [e for e in self.entries if (e["name"], e["seed"]) != pair] + [entry]
        self.write([])

    def write(self, rows: Sequence[Row]) -> None:
        """rows: the summary, empty while the work goes on."""
        content = {**self.about, "summary": {row.name: asdict(row) for row in rows}, "runs": self.entries}
        write_text_atomically(self.file, json.dumps(content, indent=1, allow_nan=False) + "\n")


def open_log(file: Path, about: dict[str, Any]) -> Log:
    """With what an earlier command left. Raises ValueError where the file is of something else."""
    if not file.exists():
        return Log(file, about, [])
    try:
        entries = json.loads(file.read_text())["runs"]
        for entry in entries:
            _ = [entry[key] for key in ("name", "kind", "seed", "settings", *GROUPS)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not readable as the results of an ablation: {error!r}") from None
    return Log(file, about, entries)


def run_ablation(
    ground: AblationDataset,
    known: Mapping[str, Changes],
    only: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    command: str,
    console: Console,
    open_bench: Callable[[AblationDataset, int, Console], SeedMeasurements] | None = None,
) -> list[Row]:
    """Measures what is missing in out/ablation.json, seed by seed, then writes ablation.md and ablation.png.

    known: what variants there are, all of which are shown where the log has them; only: those to measure. Raises
    ValueError for a bad variant before any work, and for those that could not be trained after all others are done.
    """
    chosen = choose_variants(known, only)
    for name, changes in known.items():
        changed(ground.config(seeds[0]), name, changes)
    about = _about(ground, known, seeds, command)
    log = open_log(create_folder(out) / _FILE, about)
    failed = []
    for seed in seeds:
        failed += _measure_seed(ground, chosen, seed, log, console, open_bench or open_seed)
    rows = _current_rows(ground, known, log)
    log.write(rows)
    write_text_atomically(out / "ablation.md", markdown(rows, ground.name, command, _commits(log)))
    draw_rows(rows, ground.name, out / "ablation.png")
    console.print(ablation_table(rows, ground.name))
    if failed:
        raise ValueError(f"{len(failed)} could not be measured: {'; '.join(failed)}")
    return rows


def _about(ground: AblationDataset, known: Mapping[str, Changes], seeds: Sequence[int], command: str) -> dict[str, Any]:
    return {
        "dataset": ground.name,
        "metric": _METRIC,
        "command": command,
        "commit": source_commit(),
        "version": forclip.__version__,
        "seeds": list(seeds),
        "settings": settings_of(ground, ground.config(seeds[0]), seeds[0]),
        "variants": {name: dict(changes) for name, changes in known.items()},
    }


def _measure_seed(
    ground: AblationDataset,
    chosen: Mapping[str, Changes],
    seed: int,
    log: Log,
    console: Console,
    open_bench: Callable[[AblationDataset, int, Console], SeedMeasurements],
) -> list[str]:
    """Returns what could not be trained, and why."""
    config = ground.config(seed)
    plain = _without_training(settings_of(ground, config, seed))
    baselines = any(e["kind"] == "baseline" and e["seed"] == seed and e["settings"] == plain for e in log.entries)
    runs = {name: changed(config, name, changes) for name, changes in chosen.items()}
    missing = {n: run for n, run in runs.items() if log.find(n, seed, settings_of(ground, run, seed)) is None}
    if len(missing) < len(runs):
        console.print(f"seed {seed}: {len(runs) - len(missing)} of {len(runs)} variants were measured before")
    if baselines and not missing:
        return []
    bench = open_bench(ground, seed, console)
    extra = {"seed": seed, "commit": log.about["commit"]}
    if not baselines:
        for entry in bench.baselines():
            log.add({**entry, **extra, "kind": "baseline", "settings": plain})
    failed = []
    for number, (name, run) in enumerate(missing.items(), 1):
        try:
            entry = bench.variant(name, run)
        except ValueError as error:
            failed.append(f"{name} (seed {seed}): {error}")
            continue
        log.add({**entry, **extra, "kind": "variant", "settings": settings_of(ground, run, seed)})
        console.print(f"seed {seed}, {number} of {len(missing)}: {_told(entry)}", markup=False, highlight=False)
    return failed


def _told(entry: Entry) -> str:
    values = [f"{group} {entry[group]:.1f}" for group in ("base", "novel") if entry[group] is not None]
    return f"{entry['name']}: {', '.join(values)} ({entry['seconds']:.0f} s)"


def settings_of(ground: AblationDataset, config: RunConfig, seed: int) -> dict[str, Any]:
    """All that a number depends on, besides the code, as plain JSON values."""
    content = config_to_json(config)
    return {**{part: content[part] for part in ("model", "head", "train", "eval")}, "data": ground.data(seed)}


def _without_training(settings: dict[str, Any]) -> dict[str, Any]:
    return {part: values for part, values in settings.items() if part != "train"}


def _current_rows(ground: AblationDataset, known: Mapping[str, Changes], log: Log) -> list[Row]:
    """Baselines, then the known variants. What was measured with other settings than now stays in the log alone."""
    labels: dict[str, str] = {}
    current = []
    for entry in log.entries:
        name, seed = entry["name"], entry["seed"]
        config = ground.config(seed)
        if entry["kind"] == "baseline":
            labels.setdefault(name, display_name(name))
            fits = entry["settings"] == _without_training(settings_of(ground, config, seed))
        else:
            fits = name in known and entry["settings"] == settings_of(ground, changed(config, name, known[name]), seed)
        if fits:
            current.append(entry)
    labels |= {name: describe_changes(changes) for name, changes in known.items()}
    return summarise_entries(current, labels)


def _commits(log: Log) -> list[str]:
    return list(dict.fromkeys(entry["commit"] for entry in log.entries if entry.get("commit")))


def source_commit() -> str | None:
    """The commit of the checkout that this code is from, `-dirty` where files were changed; None without one."""
    folder = Path(forclip.__file__).parent
    git = ["git", "-C", str(folder)]
    try:
        # A package installed somewhere below another project's checkout must not tell that one's commit.
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True, check=True)
        described = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run([*git, *described], capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def open_seed(ground: AblationDataset, seed: int, console: Console) -> SeedMeasurements:
    """Makes and encodes what the seed needs. Raises ValueError as load_task does."""
    config = ground.config(seed)
    with tracking(console) as track:
        ground.prepare(seed, track)
        task = load_task(config, load_backbone(config), track, console)
    return _SeedMeasurements(config, console, {(config.model, config.train.views): task})


@dataclass(frozen=True)
class _SeedMeasurements:
    """tasks: by the model and the number of views of the training images; a model's views share its gallery."""

    config: RunConfig
    console: Console
    tasks: dict[tuple[ModelConfig, int | None], Task]

    def baselines(self) -> list[Entry]:
        task = next(iter(self.tasks.values()))
        start = time.perf_counter()
        measured = measure_training_free(task, self.config.head, self.config.eval, self.config.train.seed)
        seconds = (time.perf_counter() - start) / len(measured)
        return [_entry(name, one, None, seconds) for name, one in measured.items()]

    def variant(self, name: str, config: RunConfig) -> Entry:
        task = self._task(config)
        start = time.perf_counter()
        tuned = finetune_on(task, config.head, config.train)
        found = measure(task, name, tuned.head, config.train.seed, config.eval, tuned.class_vectors)
        return _entry(name, found, tuned.choices.to_json(), time.perf_counter() - start)

    def _task(self, config: RunConfig) -> Task:
        wanted = (config.model, config.train.views)
        if wanted not in self.tasks:
            same = [task for (model, _), task in self.tasks.items() if model == config.model]
            self.tasks[wanted] = self._other_views(same[0], config) if same else self._other_model(config)
        return self.tasks[wanted]

    def _other_model(self, config: RunConfig) -> Task:
        with tracking(self.console) as track:
            return load_task(config, load_backbone(config), track, self.console)

    def _other_views(self, task: Task, config: RunConfig) -> Task:
        train, _ = load_sets(config.data)
        with tracking(self.console) as track:
            encoded = encode_training_images(config, task.backbone, train, track, self.console)
        return replace(task, train_images=TrainingImages.encoded(encoded.tokens, task.train_images.paths))


def _entry(name: str, found: Measured, choices: dict[str, Any] | None, seconds: float) -> Entry:
    """seconds: of finetuning (with what it asks of a teacher) and evaluation."""
    means = found.run.report.means["min(k,R)"]
    return {
        "name": name,
        "base": means["base"],
        "novel": means["novel"],
        "all": means["all"],
        "vectors_per_image": found.run.vectors_per_image,
        "choices": choices,
        "seconds": seconds,
    }


def known_variants(file: Path | None, only: Sequence[str]) -> tuple[dict[str, Changes], list[str]]:
    """All variants there are, those of the file after the built-in ones, and the names to measure.

    Without `only`, these are all built-in ones, or `for` and those of the file.
    """
    given = {} if file is None else read_variants(file)
    known = {**ABLATIONS, **given}
    return known, list(only) or (list(known) if file is None else list(dict.fromkeys([FOR, *given])))
