"""What a person watches of a training: curves, mAP after each epoch, and the best images for a few classes."""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps

from forclip.config import TrainConfig
from forclip.data.images.decode import UnreadableImage, read_image
from forclip.embedding.row_shards import Rows
from forclip.location import Location
from forclip.training.gains import class_precisions
from forclip.training.score_images import score_images
from forclip.training.supervision import Supervision
from forclip.training.trainer import TrainingState, learning_rate
from forclip.types import Floats, Ints

_MEASURED_IMAGES = 512
_QUERIES, _RANKS, _SIDE, _FRAME = 4, 8, 112, 5  # classes, images of each; pixels
_MOST_POINTS = 5000  # of a curve
_SHOWN, _ABSENT, _UNKNOWN = "#2e9e4f", "#d03b3b", "#8a8a8a"


class Recorder(Protocol):
    """Where curves, pictures and texts go. stage: such as "finetuning"; step: steps done in this stage."""

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""

    def picture(self, stage: str, step: int, name: str, picture: Image.Image) -> None:
        """Add a picture."""

    def text(self, name: str, text: str) -> None:
        """Add a text about the whole run."""

    def close(self) -> None:
        """Write what is left."""


class NoRecorder:
    """A Recorder that keeps nothing, of a worker that only helps to measure."""

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def picture(self, stage: str, step: int, name: str, picture: Image.Image) -> None:
        """Nothing."""

    def text(self, name: str, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Watch:
    """Measures heads after each epoch on a sample of the labelled training images. *Collective*."""

    def __init__(
        self,
        recorder: Recorder,
        parts: Rows,
        supervision: Supervision,
        paths: Sequence[Location] | None,
        seed: int,
    ) -> None:
        """parts: [P, I, T, W], what the model embeds of each image; paths: [I], None for no pictures."""
        self.recorder, self.parts, self.supervision, self.paths = recorder, parts, supervision, paths
        self.rows = supervision.sample_labelled(max(1, _MEASURED_IMAGES // len(parts)), seed)
        self.labels, self.verified = supervision.labels[self.rows], supervision.verified[self.rows]
        self._thumbnails: dict[int, Image.Image] = {}

    def begin(self, stage: str, supervision: Supervision) -> "StageWatch":
        """Watch one training. supervision: with fewer classes if some are held out."""
        kept = set(supervision.names)
        held_out = [c for c, name in enumerate(self.supervision.names) if name not in kept]
        return StageWatch(self, stage, np.array(held_out, np.int64))

    def thumbnail(self, row: int) -> Image.Image:
        """Return a small copy of a training image, gray if it can't be read any more."""
        if row not in self._thumbnails:
            assert self.paths is not None
            try:
                small = ImageOps.pad(read_image(self.paths[row]), (_SIDE, _SIDE), color="white")
            except (UnreadableImage, OSError):
                small = Image.new("RGB", (_SIDE, _SIDE), _UNKNOWN)
            self._thumbnails[row] = small
        return self._thumbnails[row]


class StageWatch:
    """Records one training: `step` after each step, `epoch` after each epoch."""

    def __init__(self, watch: Watch, stage: str, held_out: Ints) -> None:
        self._watch, self._stage, self._held_out = watch, stage, held_out
        self._seen = np.setdiff1d(np.arange(len(watch.supervision.texts)), held_out)
        self._queries = self._choose_queries() if watch.paths is not None and watch.supervision.names else []
        self._since = time.perf_counter(), -1

    def step(self, state: TrainingState, total: int, config: TrainConfig) -> None:
        """Record the objectives and the learning rate."""
        if state.step % -(-total // _MOST_POINTS) == 0:
            terms = state.history[-1]
            loss = sum(objective.weight * terms[objective.name] for objective in state.objectives)
            values = {f"loss/{name}": value for name, value in terms.items()} | {"loss/total": loss}
            rate = learning_rate(state.step - 1, total, config)
            self._watch.recorder.scalars(self._stage, state.step, values | {"learning_rate": rate})

    def epoch(self, state: TrainingState, epoch: int) -> dict[str, float]:
        """Measure the head, record rankings, and return the mAP of the measured images in percent. *Collective*."""
        now, since = time.perf_counter(), self._since
        scores = self._scores(state)
        labels, verified = self._watch.labels, self._watch.verified
        measured = {}
        for name, classes in (("map_seen_classes", self._seen), ("map_held_out_classes", self._held_out)):
            precisions = class_precisions(scores[:, classes], labels[:, classes], verified[:, classes])
            if not np.isnan(precisions).all():
                measured[name] = round(float(np.nanmean(precisions)), 3)
        values = {name.replace("map_", "map/"): value for name, value in measured.items()} | {"epoch": float(epoch)}
        if since[1] >= 0:
            values["steps_per_second"] = (state.step - since[1]) / (now - since[0])
        self._watch.recorder.scalars(self._stage, state.step, values)
        for c in self._queries:
            self._watch.recorder.picture(
                self._stage, state.step, f"rankings/{self._watch.supervision.names[c]}", self._ranking(c, scores[:, c])
            )
        self._since = time.perf_counter(), state.step
        return measured

    @torch.no_grad()
    def _scores(self, state: TrainingState) -> Floats:
        head, is_training = state.result, state.result.training
        head.eval()
        rows, texts = torch.from_numpy(self._watch.rows), self._watch.supervision.texts
        scores = torch.stack([score_images(head, part, rows, texts) for part in self._watch.parts]).amax(0)
        head.train(is_training)
        result: Floats = scores.float().numpy()
        return result

    def _choose_queries(self) -> list[int]:
        """Return the classes with the most images: of those held out first, then of those trained on."""
        counts = (self._watch.labels & self._watch.verified).sum(0)
        held_out, seen = (sorted(c, key=lambda k: -counts[k]) for c in (self._held_out.tolist(), self._seen.tolist()))
        first = held_out[: _QUERIES // 2]
        return [c for c in (*first, *seen[: _QUERIES - len(first)]) if counts[c]]

    def _ranking(self, c: int, scores: Floats) -> Image.Image:
        """Draw the best images for a class: framed green if they show it, red if not, gray if that is unknown."""
        best = np.argsort(-scores, kind="stable")[:_RANKS]
        side = _SIDE + 2 * _FRAME
        grid = Image.new("RGB", (side * len(best), side), "white")
        for place, k in enumerate(best.tolist()):
            is_known, is_shown = self._watch.verified[k, c], self._watch.labels[k, c]
            colour = (_SHOWN if is_shown else _ABSENT) if is_known else _UNKNOWN
            framed = ImageOps.expand(self._watch.thumbnail(int(self._watch.rows[k])), _FRAME, colour)
            grid.paste(framed, (place * side, 0))
        return grid


def mean_terms(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each objective over steps."""
    return {name: round(float(np.mean([terms[name] for terms in history])), 6) for name in history[-1]}
