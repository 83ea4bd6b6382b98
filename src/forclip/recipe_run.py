"""A paper's recipe in one command: train, then compare all methods."""

import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from forclip.config import RunConfig
from forclip.evaluation.metrics_file import Metrics
from forclip.recipes.papers import DATASETS, PaperRecipe, paper_recipes, smoke_config
from forclip.recipes.smoke import SMOKE_WRITERS
from forclip.runs import evaluate_run, train_run


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
