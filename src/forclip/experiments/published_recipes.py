"""The paper's comparisons on COCO, LVIS and nuImages: a configuration for each dataset and pretrained model."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

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
from forclip.experiments.evaluate import evaluate_run
from forclip.experiments.smoke import SMOKE_WRITERS
from forclip.models.open_clip_backbone import RANDOM
from forclip.training.runs import train_run

_BYTES = 2  # tokens are kept as float16


@dataclass(frozen=True)
class PretrainedTower:
    """A model of open_clip's. num_tokens, width: of the tokens kept for an image; memory: GB that the model itself
    takes in float32."""

    name: str
    pretrained: str
    num_tokens: int
    width: int
    memory: float


@dataclass(frozen=True)
class PaperDataset:
    """needs: what must lie below the root; train_images, gallery_images: how many there are; data: from the root."""

    needs: tuple[str, ...]
    train_images: int
    gallery_images: int
    data: Callable[[Path], DataConfig]


TOWERS = {
    "rn50x64": PretrainedTower("RN50x64", "openai", 196, 4096, 2.5),
    "vit-b-16": PretrainedTower("ViT-B-16", "openai", 197, 768, 0.6),
    "vit-l-14-336": PretrainedTower("ViT-L-14-336", "openai", 577, 1024, 1.7),
    "siglip2": PretrainedTower("ViT-B-16-SigLIP2-256", "webli", 256, 768, 1.5),
}


def _coco(root: Path) -> DataConfig:
    train, val = (
        SourceConfig(root / "annotations" / f"instances_{part}2017.json", root / f"{part}2017", "coco")
        for part in ("train", "val")
    )
    return DataConfig(train=train, gallery=val, novel=NovelRule(split="coco-48-17"))


def _lvis(root: Path) -> DataConfig:
    train, val = (SourceConfig(root / f"lvis_v1_{part}.json", root, "lvis") for part in ("train", "val"))
    return DataConfig(train=train, gallery=val, novel=NovelRule(frequency="r"))


def _nuimages(root: Path) -> DataConfig:
    train, val = (SourceConfig(root / f"v1.0-{part}", root, "nuimages") for part in ("train", "val"))
    return DataConfig(train=train, gallery=val, novel=NovelRule(split="nuimages"))


DATASETS = {
    "coco": PaperDataset(
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017/", "val2017/"),
        118_287,
        5_000,
        _coco,
    ),
    "lvis": PaperDataset(
        ("lvis_v1_train.json", "lvis_v1_val.json", "train2017/", "val2017/ (COCO's folders)"), 100_170, 19_809, _lvis
    ),
    "nuimages": PaperDataset(("v1.0-train/", "v1.0-val/", "samples/"), 67_279, 16_445, _nuimages),
}


@dataclass(frozen=True)
class PaperRecipe:
    """A dataset with a tower."""

    dataset: PaperDataset
    tower: PretrainedTower

    @property
    def disk(self) -> float:
        """GB of tokens that the cache will hold, for training and gallery, one view each."""
        images = self.dataset.train_images + self.dataset.gallery_images
        return images * self.tower.num_tokens * self.tower.width * _BYTES / 1e9

    def config(self, root: Path, out: Path, labelled_fraction: float = 1.0, device: str = "cpu") -> RunConfig:
        """root: the dataset's folder; out: where the cache goes."""
        return RunConfig(
            data=replace(self.dataset.data(root), vocabulary="lvis", cache=out / "cache"),
            model=ModelConfig(self.tower.name, self.tower.pretrained),
            train=TrainConfig(labelled_fraction=labelled_fraction),
            device=device,
        )


def paper_recipes() -> Iterator[tuple[str, PaperRecipe]]:
    """`coco-rn50x64` and so on."""
    for dataset_name, dataset in DATASETS.items():
        for tower_name, tower in TOWERS.items():
            yield f"{dataset_name}-{tower_name}", PaperRecipe(dataset, tower)


def smoke_config(config: RunConfig) -> RunConfig:
    """The same path with random weights, few steps, few queries: to see that it runs, not what it is worth."""
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
    """Raises ValueError for an unknown name."""
    known = dict(paper_recipes())
    if name not in known:
        raise ValueError(f"recipe {name!r} is unknown: {', '.join(known)}")
    return known[name]


def run_recipe(
    name: str, root: Path, out: Path, labelled_fraction: float, device: str, resume: bool, console: Console
) -> Metrics:
    """Writes the model to out/model and the comparison to out. Raises ValueError where the dataset is not at root."""
    recipe = find_recipe(name)
    missing = [need for need in recipe.dataset.needs if not (root / need.split(" ")[0]).exists()]
    if missing:
        raise ValueError(f"{root}: no {missing[0]}; {name} needs {', '.join(recipe.dataset.needs)}")
    return _run(recipe.config(root, out, labelled_fraction, device), out, resume, console)


def smoke_recipe(name: str, labelled_fraction: float, console: Console) -> Metrics:
    """The recipe on a handful of generated pictures with random weights, in a folder that is gone afterwards."""
    recipe = find_recipe(name)
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "data", Path(folder) / "out"
        SMOKE_WRITERS[name.split("-")[0]](root)
        return _run(smoke_config(recipe.config(root, out, labelled_fraction)), out, False, console)


def _run(config: RunConfig, out: Path, resume: bool, console: Console) -> Metrics:
    train_run(config, out / "model", resume, console)
    return evaluate_run(config, out / "model", out, console)


def print_recipes(console: Console) -> None:
    """What there is, and what each needs."""
    table = Table(box=None)
    table.add_column("recipe", no_wrap=True)
    table.add_column("open_clip's model")
    table.add_column("GB of tokens\non disk", justify="right")
    table.add_column("GB of\nweights", justify="right")
    for name, recipe in paper_recipes():
        tower = recipe.tower
        table.add_row(name, f"{tower.name} ({tower.pretrained})", f"{recipe.disk:.0f}", f"{tower.memory:g}")
    console.print(table)
    for name, dataset in DATASETS.items():
        console.print(f"{name}: --root holds {', '.join(dataset.needs)}", markup=False, highlight=False)
