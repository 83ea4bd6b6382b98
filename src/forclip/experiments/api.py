"""Train and evaluate from Python: what `forclip train` and `forclip eval` do, as `forclip.train` and `evaluate`."""

from pathlib import Path

from rich.console import Console

from forclip.config import ModelConfig, RunConfig, load_config
from forclip.evaluation.metrics_file import Metrics
from forclip.experiments.evaluate import evaluate_run
from forclip.models.retrieval_model import RetrievalModel, load_model
from forclip.training.runs import train_run


def train(
    config: RunConfig | str | Path, out: str | Path, *, resume: bool = False, console: Console | None = None
) -> RetrievalModel:
    """Finetune a model with FOR on the base labels of a dataset, write the run to a folder and load it.

    config: a RunConfig, or the path of its YAML file. out: folder for the model and its checkpoint; `forclip index`
    and load_model accept it as a model. resume: continue a run that was stopped. console: receives progress and
    messages; standard error by default.

    Raises ValueError if the config or the data is invalid, or if `out` already contains a run and resume is False.
    """
    config = _as_config(config)
    train_run(config, Path(out), resume, console or Console(stderr=True))
    return load_model(ModelConfig(str(out)), config.device)


def evaluate(
    config: RunConfig | str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    interpolate: bool = False,
    console: Console | None = None,
) -> Metrics:
    """Compare all methods on a dataset. Writes metrics.json and report.html, and returns the metrics.

    config, console: as in train. out: output folder. model: folder of a trained run; without it only the baselines
    are measured. interpolate: also measure heads between the untuned and the tuned head of the run.

    Raises ValueError if the config or the data is invalid, or if the run is missing, damaged, or was trained with
    labels of a class that is novel here.
    """
    folder = None if model is None else Path(model)
    return evaluate_run(_as_config(config), folder, Path(out), console or Console(stderr=True), interpolate)


def _as_config(config: RunConfig | str | Path) -> RunConfig:
    return config if isinstance(config, RunConfig) else load_config(Path(config))
