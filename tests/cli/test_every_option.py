"""Every command runs once with each of its options.

Long work is replaced by a recorder of its arguments; tests of its package run it. A new command or option
fails `test_every_option_is_run` until an invocation here has it.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from forclip.cli import app
from forclip.config import ModelConfig
from forclip.embedding.ingest import IndexSummary, index_images
from forclip.evaluation.metrics_file import write_metrics
from forclip.index.milvus.publish import PublishSummary
from forclip.toyworld.dataset import ToyWorld
from tests.cli.test_cli import run, write_config
from tests.evaluation.test_metrics_file import sample

NOT_RUN = {"--install-completion", "--show-completion"}  # typer's own: they write to the shell's files
RAN: list[list[str]] = []  # the invocations of this module

Recorder = Callable[..., list[tuple[tuple[Any, ...], dict[str, Any]]]]


def succeed(*arguments: object, code: int = 0) -> Any:
    RAN.append([str(argument) for argument in arguments])
    done = run(*RAN[-1])
    assert done.exit_code == code, done.output + done.stderr
    return done


@pytest.fixture(scope="module")
def world(small_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four `pictures`, their `store`, their `labels.csv`, and `ids.txt` with the first one's id."""
    folder = tmp_path_factory.mktemp("options")
    (folder / "pictures").mkdir()
    for file in sorted(small_world.images.glob("gallery_*.jpg"))[:4]:
        shutil.copy(file, folder / "pictures" / file.name)
    names = sorted(file.name for file in (folder / "pictures").iterdir())
    (folder / "labels.csv").write_text("image,label\n" + "".join(f"{name},snail\n" for name in names))
    (folder / "meta.csv").write_text("image,shelf\n" + "".join(f"pictures/{name},1\n" for name in names))
    (folder / "ids.txt").write_text(f"pictures/{names[0]}\n")
    index_images(str(folder / "pictures"), folder / "store", model=ModelConfig("forclip-mini"))
    return folder


@pytest.fixture
def copied(world: Path, tmp_path: Path) -> Path:
    """A copy of the store that a test may change."""
    shutil.copytree(world / "store", tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Replace a function, named `module.function`, by a recorder that returns `result`."""

    def replace_function(name: str, result: Any = None) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def record(*arguments: Any, **options: Any) -> Any:
            calls.append((arguments, options))
            return result

        monkeypatch.setattr(name, record)
        return calls

    return replace_function


def test_options_of_forclip_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: Recorder) -> None:
    monkeypatch.setenv("FORCLIP_CACHE", "")  # restored after the test, which sets it
    threads = recorded("forclip.cpu.set_up_threads")
    succeed("--threads", "1", "models", "--json")
    assert threads[-1] == ((1,), {})
    succeed("--version")
    succeed("--cache", tmp_path, "--quiet", "--log", tmp_path / "log", "models", "--json", "--quiet")


def test_train_and_measure(tmp_path: Path, small_world: ToyWorld, world: Path, recorded: Recorder) -> None:
    config, out, log = write_config(tmp_path, small_world), tmp_path / "out", ["--quiet", "--log", tmp_path / "log"]
    demo = recorded("forclip.experiments.demo.run_demo", sample())
    succeed("demo", "--out", out, "--seed", "2", "--seeds", "3", *log)
    assert demo[0][0][:2] == (out, (2, 3, 4))
    train = recorded("forclip.training.runs.train")
    succeed("train", config, "--out", out, "--resume", "--compute", "float32", *log)
    assert train[0][1]["resume"] is True
    exported = ["--from", world / "labels.csv", "--images", world / "pictures", "--model", "forclip-mini"]
    succeed("train", *exported, "--device", "cpu", "--out", out, "--tensorboard", "--wandb", "mine")
    assert (train[1][1]["tensorboard"], train[1][1]["wandb"]) == (True, "mine")
    evaluate = recorded("forclip.experiments.evaluate.evaluate", sample())
    options = ["--model", tmp_path, "--out", out, "--interpolate", "--compute", "float32"]
    succeed("eval", config, *options, "--json", *log)
    assert (evaluate[0][1]["model"], evaluate[0][1]["interpolate"]) == (tmp_path, True)
    ablate = recorded("forclip.experiments.ablation.run_ablation", [])
    (tmp_path / "variants.yaml").write_text(yaml.safe_dump({"mine": {"train": {"epochs": 1}}}))
    choices = ["--seed", "1", "--seeds", "2", "--only", "mine", "--variants", tmp_path / "variants.yaml"]
    succeed("ablate", "--out", out, *choices, "--train-images", "20", "--gallery-images", "10", *log)
    assert (ablate[0][0][2], list(ablate[0][0][3])) == (["mine"], [1, 2])
    succeed("ablate", config, "--out", out)
    recipe = recorded("forclip.experiments.published_recipes.run_recipe", sample())
    options = ["--root", tmp_path, "--out", out, "--labelled-fraction", "0.1", "--device", "cpu", "--resume"]
    succeed("recipe", "coco-rn50x64", *options, *log)
    assert recipe[0][0][3:6] == (0.1, "cpu", True)
    smoke = recorded("forclip.experiments.published_recipes.smoke_recipe", sample())
    succeed("recipe", "coco-rn50x64", "--smoke")
    assert smoke[0][0][0] == "coco-rn50x64"
    succeed("recipe")


def test_compare_and_check(tmp_path: Path, small_world: ToyWorld, world: Path) -> None:
    for name in ("a.json", "b.json"):
        write_metrics(tmp_path / name, sample())
    succeed("compare", tmp_path / "a.json", tmp_path / "b.json", "--out", tmp_path / "out", "--json", "--quiet")
    labels = ["data", "check", world / "labels.csv", "--images", world / "pictures"]
    succeed(*labels, "--json", "--quiet", "--log", tmp_path / "log")


def test_plan() -> None:
    sizes = ["--image-size", "96", "--megapixels", "1", "--tiles", "2x2", "--merge", "0.9", "--precision", "int8"]
    costs = ["--price-per-gb-month", "0.1", "--disk-price-per-gb-month", "0.2", "--memory", "8GB"]
    model = ["plan", "--images", "1k", "--model", "forclip-mini"]
    succeed(*model, *sizes, *costs, "--cpus", "2", "--rate", "9", "--milvus-index", "FLAT", "--json", "--quiet")
    succeed(*model, "--gpus", "2xA100", "--compute", "fp16", "--num-query-tokens", "9")
    succeed(*model, "--vectors-per-image", "5")


def test_index(tmp_path: Path, world: Path, recorded: Recorder) -> None:
    calls = recorded("forclip.embedding.ingest.index_images", IndexSummary(1, 0, 0, {}, 0, ()))
    model = ["--model", "ViT-B-32", "--pretrained", "random", "--image-size", "64x96", "--head", "sum"]
    vectors = ["--num-query-tokens", "9", "--precision", "int8", "--merge", "0.9", "--max-vectors", "7"]
    tiles = ["--tiles", "2x2", "--tile-overlap", "0.25"]
    source = ["--images", world / "pictures", "--metadata", world / "meta.csv", "--every", "2s", "--retry"]
    device = ["--device", "cuda", "--compute", "fp16", "--compile", "--batch-size", "16", "--memory", "4GB"]
    succeed(*("index", world / "pictures", "--to", tmp_path / "s"), *model, *vectors, *tiles, *source, *device)
    options = calls[0][1]
    assert options["model"] == ModelConfig("ViT-B-32", pretrained="random", image_size=(64, 96))
    assert (options["head"], options["num_query_tokens"], options["precision"], options["merge"]) == (
        "sum",
        9,
        "int8",
        0.9,
    )
    assert (options["max_vectors"], options["tiles"], options["tile_overlap"], options["every"]) == (7, "2x2", 0.25, 2)
    assert (options["device"], options["compute"], options["compiled"], options["batch_size"]) == (
        "cuda",
        "fp16",
        True,
        16,
    )
    ray = ["--engine", "ray", "--address", "auto", "--workers", "2", "--max-workers", "4", "--cpus-per-worker", "3"]
    part = ["--shard", "1/2", "--images-per-commit", "64", "--delete-vanished", "--json", "--quiet"]
    succeed("index", world / "pictures", "--to", tmp_path / "s", *ray, *part, "--log", tmp_path / "log")
    job = calls[1][1]["run"]
    assert (job.engine, job.address, job.workers, job.max_workers, job.cpus) == ("ray", "auto", 2, 4, 3)
    assert (str(job.shard), job.images_per_commit, calls[1][1]["delete_vanished"]) == ("1/2", 64, True)


def test_search_look_and_export(tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda url: True)
    store, picture = world / "store", sorted((world / "pictures").iterdir())[1]
    texts = ["--any", "cat", "--all", "tree", "--not", "car"]
    model = ["--model", "forclip-mini", "--device", "cpu"]
    succeed("search", store, "snail", *texts, "-k", "2", "--where", "width > 1", "--collapse", "0.9", "--json", *model)
    lists = ["--right", world / "ids.txt", "--exact", "--min-score", "-1", "--pictures", "none", "--quiet"]
    succeed("search", store, "snail", *lists, "--report", tmp_path / "r.html", "--open")
    (tmp_path / "split.json").write_text(json.dumps({"base": ["snail"], "novel": []}))
    labels = ["--annotations", world / "labels.csv", "--images", world / "pictures", "--split", tmp_path]
    succeed("search", store, "snail", *labels, "--cutoff", "0.1", "--wrong", "/dev/null")
    succeed("search", store, "--like", picture)
    assert "subset" in succeed("search", store, "snail", *labels, "--subset", "val", code=2).stderr
    wrong_weights = ["--model", "forclip-mini", "--pretrained", "random"]
    succeed("search", store, "snail", *wrong_weights, code=2)

    succeed("look", store, picture, "snail", "--to", tmp_path / "heat.png", "--json", "--quiet", *model)
    succeed("look", store, picture, "snail", *wrong_weights, code=2)

    whole = ["--to", tmp_path / "a.csv", "--format", "csv", "--label", "slow", "--root", world, "--quiet", *model]
    succeed("export", store, "snail", *texts, "-k", "2", "--where", "width > 1", *whole)
    succeed("export", store, "--like", picture, "--to", tmp_path / "b.json")
    succeed("export", store, "snail", "--cutoff", "0.1", "--to", tmp_path / "c.json")
    succeed("export", store, "snail", "--to", tmp_path / "f.csv", "--split", "0.5", "--new")
    succeed("export", store, "--ids", world / "ids.txt", "--to", tmp_path / "d.json")
    succeed("export", store, "snail", "--to", tmp_path / "e.json", *wrong_weights, code=2)


def test_serve_and_quickstart(tmp_path: Path, world: Path, recorded: Recorder) -> None:
    served, workers = recorded("forclip.server.app.serve"), recorded("forclip.server.workers.serve_by_workers")
    access = ["--host", "127.0.0.1", "--port", "18657", "--token", "a long token", "--device", "cpu"]
    (tmp_path / "split.json").write_text(json.dumps({"base": ["snail"], "novel": []}))
    labels = ["--annotations", world / "labels.csv", "--images", world / "pictures", "--split", tmp_path]
    options = ["--compute", "float32", "--picture-cache", "1", "--quiet", "--model", "forclip-mini"]
    succeed("serve", world / "store", *access, *labels, *options)
    assert served[0][0][1].token == "a long token"
    succeed("serve", world / "store", "--port", "18657", "--workers", "2")
    assert len(workers[0][0][2]) == 2
    succeed("serve", world / "store", "--port", "18657", *labels, "--subset", "val", code=2)
    succeed("serve", world / "store", "--port", "18657", "--model", "forclip-mini", "--pretrained", "random", code=2)
    more = ["--to", tmp_path / "s", "--model", "forclip-mini", "--compute", "float32", "--no-open", "--quiet"]
    succeed("quickstart", world / "pictures", *access, *more, "--log", tmp_path / "log")
    assert served[-1][1]["indexing"].source == str(world / "pictures")
    succeed("quickstart", world / "pictures", "--to", tmp_path / "t", "--pretrained", "random", code=2)


def test_keep_a_store(tmp_path: Path, world: Path, copied: Path, recorded: Recorder) -> None:
    log = ["--quiet", "--log", tmp_path / "log"]
    options = ["--threshold", "0.5", "--where", "width > 1", "--ids-to", tmp_path / "ids.txt", "--json"]
    succeed("duplicates", copied, *options, *log)
    succeed("info", copied, "--verbose", "--quiet")
    succeed("info", copied, "--json")
    succeed("doctor", "--offline", "--json", "--quiet")
    succeed("verify", copied, *log)
    succeed("relocate", copied, f"pictures={world / 'pictures'}", "--json", "--quiet")
    succeed("delete", copied, "--where", "width > 1", "--dry-run", "--quiet")
    assert "1 deleted, 3 left" in succeed("delete", copied, "--ids", world / "ids.txt", "--yes").stdout
    model = ["--model", "forclip-mini", "--pretrained", "random", "--device", "cpu"]
    succeed("compact", copied, "--index", "none", "--memory", "1GB", *model, *log)

    published = recorded("forclip.index.milvus.publish.publish", PublishSummary(4, 0, 0, 0, 36, 0, None))
    vectors = ["--merge", "0.9", "--max-vectors", "5", "--precision", "fp16", "--index", "FLAT", "--column", "shelf"]
    succeed("publish", copied, "milvus://host/photos", *vectors, "--replace", "--json", *log)
    assert published[0][0][2].columns == ["shelf"]
    compared = recorded("forclip.cli.publish.verify_against", [])
    succeed("verify", copied, "--against", "milvus://host/photos")
    assert compared[0][0] == (str(copied), "milvus://host/photos")


def commands(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command with its parameters, by the words that call it."""
    yield name, command
    for part, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*name, part))


def test_every_option_is_run() -> None:
    """Runs after the others, whose invocations it checks."""
    if not RAN:
        pytest.skip("no other test of this module was run")
    every = dict(commands(typer.main.get_command(app)))
    given: dict[tuple[str, ...], set[str]] = {name: set() for name in every}
    for arguments in RAN:
        start = next((k for k, word in enumerate(arguments) if (word,) in every), len(arguments))
        given[()] |= set(arguments[:start])
        name = tuple(arguments[start : start + (2 if tuple(arguments[start : start + 2]) in every else 1)])
        given[name] |= {"", *arguments[start:]}
    missing = {
        " ".join([*name, parameter.opts[0]])
        for name, command in every.items()
        for parameter in command.params
        if parameter.param_type_name == "option" and not {*parameter.opts, *parameter.secondary_opts} & given[name]
    }
    groups = {name for name, command in every.items() if hasattr(command, "commands")}
    assert not missing - NOT_RUN, sorted(missing - NOT_RUN)
    assert [name for name in every if not given[name] and name not in groups] == []
