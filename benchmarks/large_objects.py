"""Measure FOR on toy worlds of large objects, and training on labels alone that follows none of its choices.

    python -m benchmarks.large_objects [--seeds 3] [--scenes 1000] [--epochs 25] [--steps 0.01,0.02,0.04,0.08]
        [--out FILE]

Each scene has one large object and up to two small ones, as VOC's photos have, so plain CLIP is hard to improve on. The
worlds are small (so many scenes to train on, 300 to search), and so is the head (9 query tokens, one view). "labels
alone" trains on the base labels without a teacher, alignment and plain CLIP's share, with each step size, and follows
the training fully. It shows what the choices of FOR, which see base classes alone, leave unused. With enough scenes,
FOR leaves out images in its full trials. Then "FOR, all images in trials" is FOR without that.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.command import command_line
from forclip.atomic_write import write_text_atomically
from forclip.config import EvalConfig, HeadConfig, TrainConfig
from forclip.evaluation.protocol import GROUPS
from forclip.experiments.ablation import source_commit
from forclip.experiments.comparison import Task, finetune_on, measure
from forclip.experiments.demo import toyworld_config
from forclip.experiments.evaluate import load_task
from forclip.models.baselines import Head, training_free_head
from forclip.models.retrieval_model import ClassVectors
from forclip.progress import untracked
from forclip.toyworld.dataset import write_toyworld
from forclip.training import class_holdout
from forclip.training.runs import load_backbone

_GALLERY = 300
_HEAD = HeadConfig(num_query_tokens=9)
Means = dict[str, float | None]  # mAP@50 in percent, by group of classes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--steps", default="0.01,0.02,0.04,0.08")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    by_seed = {}
    for seed in range(given.seeds):
        by_seed[seed] = measure_seed(seed, given.scenes, given.epochs, [float(s) for s in given.steps.split(",")])
        print(f"seed {seed}:", json.dumps(by_seed[seed]), flush=True)
    if given.out:
        content = {"command": command_line(), "commit": source_commit(), "seeds": by_seed}
        write_text_atomically(given.out, json.dumps(content, indent=1) + "\n")
    Console().print(table(list(by_seed.values())))


def measure_seed(seed: int, scenes: int, epochs: int, steps: list[float]) -> dict[str, Means]:
    """Return mAP@50 by method and group of classes."""
    with tempfile.TemporaryDirectory() as folder:
        config = toyworld_config(write_toyworld(folder, scenes, _GALLERY, seed, large_objects=True), seed)
        config = replace(config, train=TrainConfig(views=1, epochs=epochs, seed=seed), head=_HEAD)
        task = load_task(config, load_backbone(config), untracked, Console(file=StringIO()))
        plain = training_free_head(task.backbone, "global")
        tuned = finetune_on(task, _HEAD, config.train)
        found = {
            "plain CLIP": means(task, plain, seed),
            "FOR before training": means(task, tuned.untuned, seed),
            "FOR": means(task, tuned.head, seed, tuned.class_vectors),
        }
        if class_holdout.leaves_out_images(scenes, num_parts=1):
            with patch.object(class_holdout, "FEWEST_TO_LEAVE_OUT", scenes + 1):
                seen = finetune_on(task, _HEAD, config.train)
            found["FOR, all images in trials"] = means(task, seen.head, seed, seen.class_vectors)
        for step in steps:
            train = replace(config.train, teacher="none", interpolation=1.0, step_size=step)
            alone = finetune_on(task, replace(_HEAD, alignment="off", pooled_share=0.0), train)
            found[f"labels alone, step {step:g}"] = means(task, alone.head, seed)
        return found


def means(task: Task, head: Head, seed: int, class_vectors: ClassVectors | None = None) -> Means:
    found = measure(task, "", head, seed, EvalConfig(), class_vectors).run.report.means["min(k,R)"]
    return {group: found[group] for group in GROUPS}


def table(seeds: list[dict[str, Means]]) -> Table:
    shown = Table("method", *GROUPS, title="mAP@50, mean and standard deviation over seeds")
    for method in seeds[0]:
        values = [np.array([methods[method][group] for methods in seeds], float) for group in GROUPS]
        shown.add_row(method, *(f"{np.mean(v):.1f} ± {np.std(v, ddof=len(v) > 1):.1f}" for v in values))
    return shown


if __name__ == "__main__":
    main()
