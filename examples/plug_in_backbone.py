"""Use your own model: adapt it to forclip's backbone protocol, finetune it with FOR and compare all methods.

    python examples/plug_in_backbone.py --model FOLDER --train FILE --train-images DIR \
        --gallery FILE --gallery-images DIR --novel FILE [--classes FILE] [--seeds 3] [--min-relevant 3] --out DIR \
        [--teacher none --interpolation 0 --views 1] [--labelled-fraction 0.1 [--no-self-training]]

The options --teacher, --interpolation and --views fix choices that are otherwise made by trial trainings, which take
most of the time. With --labelled-fraction, training forgets the labels of the other images.

Writes metrics.json, and after every seed seeds.json, with the seed's numbers, its choices and their evidence.
FOLDER contains a module `photoclip.py` with a CLIP-like model: a trunk, an attention pool and a table of text vectors.
forclip needs nothing but the adapter below.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from forclip.atomic_write import write_text_atomically
from forclip.config import EvalConfig, HeadConfig, SourceConfig, TrainConfig, read_names
from forclip.data.images.views import make_views, resolve_num_views
from forclip.data.sources import load_source
from forclip.data.splits import split_classes
from forclip.embedding.embed import encode_images, encode_views
from forclip.evaluation.metrics_file import MethodRun, summarise_runs, write_metrics
from forclip.evaluation.terminal import print_metrics
from forclip.experiments.comparison import Task, finetune_on, measure, measure_training_free, new_task
from forclip.models.backbone import weights_fingerprint
from forclip.models.pools import MeanTokenPool, Pool
from forclip.progress import Track, tracking
from forclip.text.prompt_options import PromptOptions

SeedSummary = dict[str, Any]  # the entry of one seed in seeds.json


class PhotoClipBackbone:
    """PhotoClip as a forclip backbone."""

    name = "photoclip"
    device = torch.device("cpu")

    def __init__(self, folder: Path) -> None:
        self.module = _import_from(folder / "photoclip.py")
        self.model = self.module.load_photoclip(folder)

    @property
    def fingerprint(self) -> str:
        return weights_fingerprint(self.model.state_dict(), "squash to 448, [-1, 1)")

    def preprocess(self, image: Image.Image) -> Tensor:
        pixels: Tensor = self.module.preprocess(image)
        return pixels

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        return 0.0, 0.0, 1.0, 1.0  # the whole image, squashed

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        # One image at a time is several times faster on a CPU than a batch, and needs less memory.
        feature_map = torch.cat([self.model.trunk(image[None]) for image in pixels])
        return feature_map.flatten(2).transpose(1, 2)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        for text in texts:
            if text not in self.model.text:
                raise ValueError(f"{self.name} has no text vector for {text!r}")
        vectors: Tensor = self.model.encode_text(texts)
        return vectors

    def known_texts(self) -> list[str]:
        """The texts that the model has a vector for."""
        return list(self.model.text)

    def new_pool(self) -> Pool:
        pool = self.model.attnpool
        side = int((len(pool.positional_embedding) - 1) ** 0.5)
        q, k, v, c = (_copy_linear(getattr(pool, f"{letter}_proj")) for letter in "qkvc")
        return MeanTokenPool(q, k, v, c, pool.positional_embedding.data, pool.num_heads, (side, side), c.out_features)


def _copy_linear(linear: nn.Linear) -> nn.Linear:
    copy = nn.Linear(linear.in_features, linear.out_features)
    copy.load_state_dict(linear.state_dict())
    return copy


def _import_from(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.exists():
        sys.exit(f"{file}: no such file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    try:
        run(_arguments())
    except ValueError as error:
        print(f"plug_in_backbone: {error}", file=sys.stderr)
        sys.exit(2)


def run(args: argparse.Namespace) -> None:
    """Encode both sets, measure all methods, print the table, and write metrics.json and seeds.json."""
    backbone = PhotoClipBackbone(args.model)
    embeddable = backbone.known_texts()
    requested = set(read_names(args.classes)) if args.classes else set(embeddable)
    files = ((args.train, args.train_images), (args.gallery, args.gallery_images))
    sets = [load_source(SourceConfig(file, images, format="coco")) for file, images in files]
    # Use the classes that are in both files and that the model has a text vector for.
    names = [n for n in sets[0].class_names if n in sets[1].class_names and n in embeddable and n in requested]
    split = split_classes(names, [n for n in read_names(args.novel) if n in names])
    with tracking(Console(stderr=True)) as track:
        recipe = TrainConfig(
            teacher=args.teacher,
            interpolation=args.interpolation,
            views=args.views,
            labelled_fraction=args.labelled_fraction,
            self_training=not args.no_self_training,
        )
        views = make_views(resolve_num_views(recipe.views, len(sets[0])), recipe.seed)
        train_views = encode_views(
            backbone, sets[0].image_ids, sets[0].paths, views, track("encoding training images", len(sets[0]))
        )
        gallery_images = encode_images(
            backbone, sets[1].image_ids, sets[1].paths, track("encoding gallery images", len(sets[1]))
        )
        train, gallery = (sets[0], train_views), (sets[1], gallery_images)
        prompts = PromptOptions(["{}"], embeddable)
        task = new_task(args.train.stem, backbone, train, gallery, split, prompts, allow_unlabelled_base=True)
        config = EvalConfig(min_relevant=args.min_relevant, tiles=args.tiles)
        runs = [measured.run for measured in measure_training_free(task, HeadConfig(), config, 0, track).values()]
        seeds: list[SeedSummary] = []
        args.out.mkdir(parents=True, exist_ok=True)
        for seed in range(args.seeds):
            method_run, seed_summary = finetune_seed(task, replace(recipe, seed=seed), config, track)
            runs.append(method_run)
            seeds.append(seed_summary)
            write_text_atomically(args.out / "seeds.json", json.dumps(seeds, indent=1) + "\n")
    metrics = summarise_runs(task.name, runs)
    write_metrics(args.out / "metrics.json", metrics)
    print_metrics(Console(), metrics)


def finetune_seed(task: Task, recipe: TrainConfig, config: EvalConfig, track: Track) -> tuple[MethodRun, SeedSummary]:
    """Finetune and measure one seed. The summary has mAP@50 in percent after and before training, and the choices."""
    tuned = finetune_on(task, HeadConfig(), recipe, track=track)
    text_side = tuned.class_vectors, tuned.calibration
    finetuned = measure(task, "for", tuned.head, recipe.seed, config, *text_side).run
    start = measure(task, "start", tuned.untuned, recipe.seed, config).run
    trained, untrained = (dict(run.report.means["min(k,R)"]) for run in (finetuned, start))
    return finetuned, {"seed": recipe.seed, "for": trained, "start": untrained, "choices": tuned.choices.to_json()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "train", "train-images", "gallery", "gallery-images", "novel", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--classes", type=Path, help="file of class names, one per line; other classes are ignored")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--min-relevant", type=int, default=1, help="skip classes with fewer gallery images")
    parser.add_argument("--teacher", choices=["auto", "start", "cluster", "zoom", "none"], default="auto")
    parser.add_argument("--interpolation", type=float, help="weight of the tuned head, 0 to 1; default: chosen")
    parser.add_argument("--views", type=int, help="views per training image; default: by number of images")
    parser.add_argument("--labelled-fraction", type=float, default=1.0, help="part of the training images with labels")
    parser.add_argument("--no-self-training", action="store_true", help="do not guess the labels of the other images")
    parser.add_argument("--tiles", default="3x3", help="tiles of the training-free baseline, or none; nine passes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
