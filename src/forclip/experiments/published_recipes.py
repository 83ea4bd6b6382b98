"""Recipes of the paper's comparisons: a configuration for each dataset (COCO, LVIS, nuImages) and pretrained tower.

A smoke run tries a recipe in seconds, on a few generated images with annotation files in the dataset's real schema.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Column, Table

from forclip.config import DataConfig, ModelConfig, NovelRule, RunConfig, SourceConfig, TrainConfig
from forclip.data.formats.nuimages import NUIMAGES_NOVEL, READABLE_NAMES
from forclip.data.splits import COCO_BASE, COCO_NOVEL
from forclip.evaluation.metrics_file import Metrics
from forclip.experiments.evaluate import evaluate
from forclip.models.references import RANDOM
from forclip.training.runs import train

_BYTES = 2  # of a float16, in which tokens are cached
_SIDE, _LABELS_PER_IMAGE = 64, 3
_PARTS = {"train": 16, "val": 8}
_LVIS_NAMES = ("aerosol_can", "alarm_clock", "crab_(animal)", "mitten", "nut", "parasail", "quilt", "trench_coat")


@dataclass(frozen=True)
class PretrainedTower:
    """An open_clip model. num_tokens, width: of an image's cached tokens; memory: GB of its weights in float32."""

    name: str
    pretrained: str
    num_tokens: int
    width: int
    memory: float


@dataclass(frozen=True)
class PaperDataset:
    """A dataset of the paper.

    needs: files and folders below the root; num_images: for training and in the gallery; annotations, images: paths
    below the root, with {} for `train` or `val`.
    """

    name: Literal["coco", "lvis", "nuimages"]
    needs: tuple[str, ...]
    num_images: int
    annotations: str
    images: str
    novel: NovelRule


TOWERS = {
    "rn50x64": PretrainedTower("RN50x64", "openai", 196, 4096, 2.5),
    "vit-b-16": PretrainedTower("ViT-B-16", "openai", 197, 768, 0.6),
    "vit-l-14-336": PretrainedTower("ViT-L-14-336", "openai", 577, 1024, 1.7),
    "siglip2": PretrainedTower("ViT-B-16-SigLIP2-256", "webli", 256, 768, 1.5),
}

DATASETS = (
    PaperDataset(
        "coco",
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017/", "val2017/"),
        118_287 + 5_000,
        "annotations/instances_{}2017.json",
        "{}2017",
        NovelRule(split="coco-48-17"),
    ),
    PaperDataset(
        "lvis",
        ("lvis_v1_train.json", "lvis_v1_val.json", "train2017/", "val2017/ (COCO's folders)"),
        100_170 + 19_809,
        "lvis_v1_{}.json",
        "",
        NovelRule(frequency="r"),
    ),
    PaperDataset(
        "nuimages",
        ("v1.0-train/", "v1.0-val/", "samples/"),
        67_279 + 16_445,
        "v1.0-{}",
        "",
        NovelRule(split="nuimages"),
    ),
)


@dataclass(frozen=True)
class PaperRecipe:
    """A dataset and a tower."""

    dataset: PaperDataset
    tower: PretrainedTower

    @property
    def disk(self) -> float:
        """GB of cached tokens, for training and gallery images with one view each."""
        return self.dataset.num_images * self.tower.num_tokens * self.tower.width * _BYTES / 1e9

    def config(self, root: Path, out: Path, labelled_fraction: float = 1.0, device: str = "cpu") -> RunConfig:
        """Return the configuration. root: folder of the dataset; out: folder that contains the cache."""
        dataset = self.dataset
        train, val = (
            SourceConfig(root / dataset.annotations.format(part), root / dataset.images.format(part), dataset.name)
            for part in ("train", "val")
        )
        return RunConfig(
            data=DataConfig(train=train, gallery=val, novel=dataset.novel, vocabulary="lvis", cache=out / "cache"),
            model=ModelConfig(self.tower.name, self.tower.pretrained),
            train=TrainConfig(labelled_fraction=labelled_fraction),
            device=device,
        )


RECIPES = {f"{dataset.name}-{tower}": PaperRecipe(dataset, TOWERS[tower]) for dataset in DATASETS for tower in TOWERS}


def smoke_config(config: RunConfig) -> RunConfig:
    """Reduce a configuration to random weights, few steps and few query tokens, to test that it runs."""
    data = replace(config.data, vocabulary=None, allow_unlabelled_base=True)
    train = replace(config.train, epochs=1, batch_size=4, views=1, held_back_folds=0, teacher="cluster")
    train, head = replace(train, teacher_clusters=3), replace(config.head, num_query_tokens=4)
    model, evaluation = replace(config.model, pretrained=RANDOM), replace(config.eval, clusters=(3,), tiles="1x2")
    return replace(config, data=data, model=model, head=head, train=train, eval=evaluation)


def find_recipe(name: str) -> PaperRecipe:
    """Return a recipe by name. Raises ValueError for an unknown name."""
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is unknown: {', '.join(RECIPES)}")
    return RECIPES[name]


def run_recipe(
    name: str, root: Path, out: Path, labelled_fraction: float, device: str, resume: bool, console: Console
) -> Metrics:
    """Train the model to out/model and write the comparison to out. Raises ValueError if root lacks a file."""
    recipe = find_recipe(name)
    missing = [need for need in recipe.dataset.needs if not (root / need.split(" ")[0]).exists()]
    if missing:
        raise ValueError(f"{root}: no {missing[0]}; {name} needs {', '.join(recipe.dataset.needs)}")
    return _run(recipe.config(root, out, labelled_fraction, device), out, resume, console)


def smoke_recipe(name: str, labelled_fraction: float, console: Console) -> Metrics:
    """Run the recipe on a few generated images with random weights, in a temporary folder."""
    recipe = find_recipe(name)
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "data", Path(folder) / "out"
        write_smoke(recipe.dataset.name, root)
        return _run(smoke_config(recipe.config(root, out, labelled_fraction)), out, False, console)


def _run(config: RunConfig, out: Path, resume: bool, console: Console) -> Metrics:
    train(config, out / "model", resume=resume, console=console)
    return evaluate(config, out, model=out / "model", console=console)


def print_recipes(console: Console) -> None:
    """Print every recipe with its model and disk space, and the files that each dataset needs."""
    sizes = [Column(header, justify="right") for header in ("GB of tokens\non disk", "GB of\nweights")]
    table = Table(Column("recipe", no_wrap=True), "open_clip's model", *sizes, box=None)
    for name, recipe in RECIPES.items():
        tower = recipe.tower
        table.add_row(name, f"{tower.name} ({tower.pretrained})", f"{recipe.disk:.0f}", f"{tower.memory:g}")
    console.print(table)
    for dataset in DATASETS:
        console.print(f"{dataset.name}: --root holds {', '.join(dataset.needs)}", markup=False, highlight=False)


def write_smoke(dataset: str, root: Path) -> None:
    """Write a dataset (coco, lvis or nuimages) below root, with 16 training and 8 validation images."""
    match dataset:
        case "coco":
            names = sorted((*COCO_BASE, *COCO_NOVEL))
            categories = [{"id": k + 1, "name": name, "supercategory": "thing"} for k, name in enumerate(names)]
            _write_coco(root, categories, "annotations/instances_{}2017.json")
        case "lvis":
            categories = [
                {"id": k + 1, "name": name, "synonyms": [name], "frequency": "rcf"[k % 3], "synset": f"{name}.n.01"}
                for k, name in enumerate(_LVIS_NAMES)
            ]
            _write_coco(root, categories, "lvis_v1_{}.json")
        case "nuimages":
            _write_nuimages(root)


def _write_coco(root: Path, categories: list[dict[str, Any]], annotation_file: str) -> None:
    """Write COCO 2017's layout, or LVIS v1's: federated, with images in COCO's folders that are named by URL only."""
    for part in _PARTS:
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for k, (file, labels) in enumerate(_images(root / f"{part}2017", part, len(categories))):
            image = {"id": k, "file_name": file.name, "width": _SIDE, "height": _SIDE}
            if "lvis" in annotation_file:
                del image["file_name"]
                image["coco_url"] = f"http://images.cocodataset.org/{part}2017/{file.name}"
                image["neg_category_ids"] = [c + 1 for c in range(len(categories)) if c not in labels][:4]
                image["not_exhaustive_category_ids"] = []
            images.append(image)
            box = {"bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": 0}
            first = len(annotations)
            annotations += [{"id": n, "image_id": k, "category_id": c + 1, **box} for n, c in enumerate(labels, first)]
        content = {"images": images, "categories": categories, "annotations": annotations}
        _write_json(root / annotation_file.format(part), content)


def _write_nuimages(root: Path) -> None:
    """Write nuImages' relational tables, with an unannotated frame next to each keyframe."""
    rare = [dotted for dotted, (name, *_) in READABLE_NAMES.items() if name in NUIMAGES_NOVEL]
    names = [*rare, *[dotted for dotted in READABLE_NAMES if dotted not in rare][:6]]
    categories = [{"token": f"category-{k}", "name": name, "description": ""} for k, name in enumerate(names)]
    for part in _PARTS:
        tables: dict[str, list[dict[str, Any]]] = defaultdict(list, category=categories)
        for k, (file, labels) in enumerate(_images(root / "samples" / f"CAM_{part.upper()}", part, len(names))):
            sample, keyframe = f"sample-{part}-{k}", f"data-{part}-{k}-True"
            tables["sample"].append({"token": sample, "timestamp": k, "key_camera_token": keyframe})
            frame = {"sample_token": sample, "filename": file.relative_to(root).as_posix()}
            for key in (True, False):
                token = {"token": f"data-{part}-{k}-{key}", "is_key_frame": key}
                tables["sample_data"].append({**token, **frame, "width": _SIDE, "height": _SIDE})
            for c in labels:
                label = {"token": f"box-{part}-{k}-{c}", "category_token": f"category-{c}"}
                box = {"bbox": [8, 8, 40, 40], "attribute_tokens": [], "mask": None}
                tables["object_ann"].append({**label, "sample_data_token": keyframe, **box})
        for table, rows in tables.items():
            _write_json(root / f"v1.0-{part}" / f"{table}.json", rows)


def _images(folder: Path, part: str, num_classes: int) -> Iterator[tuple[Path, list[int]]]:
    """Write images of noise. Yields each file and its classes, which take turns so that many are shown."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(_PARTS[part]):
        file = folder / f"{k:012d}.jpg"
        noise = np.random.default_rng([k, *folder.name.encode()]).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).resize((_SIDE, _SIDE)).save(file)
        yield file, [(_LABELS_PER_IMAGE * k + j) % num_classes for j in range(_LABELS_PER_IMAGE)]


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
