"""Recipes of the paper's comparisons: a configuration for each dataset (COCO, LVIS, nuImages) and pretrained tower."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Column, Table

from forclip.config import (
    DataConfig,
    EvalConfig,
    HeadConfig,
    ModelConfig,
    NovelRule,
    RunConfig,
    SourceConfig,
    TrainConfig,
)
from forclip.evaluation.metrics_file import Metrics
from forclip.experiments.evaluate import evaluate
from forclip.experiments.smoke import write_smoke_dataset
from forclip.models.open_clip_backbone import RANDOM
from forclip.training.runs import train

_BYTES = 2  # of a float16, in which tokens are cached


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
    return replace(
        config,
        data=data,
        model=replace(config.model, pretrained=RANDOM),
        head=HeadConfig(num_query_tokens=4),
        train=replace(train, teacher_clusters=3),
        eval=EvalConfig(clusters=(3,)),
    )


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
        write_smoke_dataset(recipe.dataset.name, root)
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
