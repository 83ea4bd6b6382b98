"""Record trainings with TensorBoard and with Weights & Biases, which are imported when a recorder is made."""

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from forclip.atomic_write import write_text_atomically
from forclip.training.watch import Recorder

_WANDB_ID = "wandb_run.txt"


class TensorBoardRecorder:
    """Writes event files: a folder for each stage, so that their curves are drawn into one chart."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError if TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError("--tensorboard needs TensorBoard: pip install 'forclip[tensorboard]'") from None
        self._make, self._folder = SummaryWriter, folder
        self._writers: dict[str, Any] = {}

    def _writer(self, stage: str, step: int) -> Any:
        if stage not in self._writers:
            # Hides the points of a run that was killed after its last checkpoint.
            self._writers[stage] = self._make(str(self._folder / stage), purge_step=step)
        return self._writers[stage]

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in values.items():
            self._writer(stage, step).add_scalar(name, value, step)

    def picture(self, stage: str, step: int, name: str, picture: Image.Image) -> None:
        """Add a picture."""
        self._writer(stage, step).add_image(name, np.asarray(picture), step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """Add a text about the whole run."""
        self._writer("run", 0).add_text(name, "    " + text.replace("\n", "\n    "))

    def close(self) -> None:
        """Write what is left."""
        for writer in self._writers.values():
            writer.close()


class WandbRecorder:
    """Sends a run to Weights & Biases, or keeps it in the model's folder where WANDB_MODE is `offline`."""

    def __init__(self, project: str, out: Path, config: Mapping[str, Any]) -> None:
        """Start a run, or continue the one that `out` has. Raises ValueError if wandb is missing or refuses."""
        try:
            import wandb
        except ImportError:
            raise ValueError("--wandb needs Weights & Biases: pip install 'forclip[wandb]'") from None
        file = out / _WANDB_ID
        if not file.exists():
            write_text_atomically(file, uuid.uuid4().hex[:12] + "\n")
        settings = wandb.Settings(silent=True, console="off")
        try:
            self._run = wandb.init(
                project=project,
                name=out.name,
                id=file.read_text().strip(),
                resume="allow",
                dir=str(out),
                config=dict(config),
                settings=settings,
            )
        except wandb.Error as error:
            raise ValueError(f"--wandb {project}: {error}; `wandb login` or WANDB_MODE=offline may help") from None
        self._image, self._stages = wandb.Image, set[str]()

    def _log(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in values.items()}})

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._log(stage, step, values)

    def picture(self, stage: str, step: int, name: str, picture: Image.Image) -> None:
        """Add a picture."""
        self._log(stage, step, {name: self._image(picture)})

    def text(self, name: str, text: str) -> None:
        """Add a text about the whole run."""
        self._run.summary[name] = text

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


class Recorders:
    """Several recorders as one."""

    def __init__(self, recorders: Sequence[Recorder]) -> None:
        self._recorders = recorders

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for recorder in self._recorders:
            recorder.scalars(stage, step, values)

    def picture(self, stage: str, step: int, name: str, picture: Image.Image) -> None:
        """Add a picture."""
        for recorder in self._recorders:
            recorder.picture(stage, step, name, picture)

    def text(self, name: str, text: str) -> None:
        """Add a text about the whole run."""
        for recorder in self._recorders:
            recorder.text(name, text)

    def close(self) -> None:
        """Write what is left."""
        for recorder in self._recorders:
            recorder.close()


def open_recorder(out: Path, config: Mapping[str, Any], tensorboard: bool, wandb: str | None) -> Recorder:
    """Open what a run records to. out: the run's folder; config: as JSON values; wandb: a project."""
    recorders: list[Recorder] = [TensorBoardRecorder(out / "tensorboard")] if tensorboard else []
    if wandb is not None:
        recorders.append(WandbRecorder(wandb, out, config))
    return Recorders(recorders)
