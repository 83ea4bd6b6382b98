"""On small worlds FOR keeps what it is for: gains on classes that were never labelled, for small and large objects."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
from rich.console import Console

from forclip.data.images.tiles import Tiles
from forclip.experiments.comparison import finetune_on, measure, measure_tiles
from forclip.experiments.demo import toyworld_config
from forclip.experiments.evaluate import load_task
from forclip.models.baselines import training_free_head
from forclip.progress import untracked
from forclip.toyworld import pictographs, scenes
from forclip.toyworld.dataset import ToyWorld, novel_names, write_toyworld
from forclip.training.runs import load_backbone


def novel_of_both(world: ToyWorld, seed: int, tiles: Tiles | None, epochs: int) -> tuple[float, float]:
    """Train with the usual choices. Returns mAP of novel classes by FOR, and by plain CLIP with the same tiles."""
    config = toyworld_config(world, seed)
    data = replace(config.data, allow_unlabelled_base=True)
    model = replace(config.model, tiles="none" if tiles is None else tiles.name)
    train = replace(config.train, epochs=epochs, views=1, teacher="start")
    head = replace(config.head, num_query_tokens=9)
    config = replace(config, data=data, model=model, train=train, head=head)
    task = load_task(config, load_backbone(config), untracked, Console(file=StringIO()))
    tuned = finetune_on(task, config.head, config.train)
    found = measure(task, "for", tuned.head, seed, config.eval, tuned.class_vectors, tiles=task.tiles)
    if tiles is None:
        plain = measure(task, "global", training_free_head(task.backbone, "global"), seed, config.eval)
    else:
        plain = measure_tiles(task, tiles, config.eval, seed)
    ours, theirs = (result.run.report.means["min(k,R)"]["novel"] for result in (found, plain))
    assert ours is not None
    assert theirs is not None
    return ours, theirs


def write_postcards(folder: Path, num_train: int, num_gallery: int, seed: int) -> ToyWorld:
    """Write scenes of one large object each, with a few small ones, as `write_toyworld` writes cluttered ones."""
    world = ToyWorld(folder, novel_names(seed))
    world.images.mkdir()
    for part, count, file in ((2, num_train, world.train_file), (3, num_gallery, world.gallery_file)):
        annotations, images = [], []
        for k in range(count):
            rng = np.random.default_rng([seed, part, k])
            names = tuple(rng.choice(pictographs.NAMES, rng.integers(1, 4), replace=False).tolist())
            scene = scenes.postcard(rng, names, 224)
            images.append({"id": k + 1, "file_name": f"{part}_{k}.jpg", "width": 224, "height": 224})
            scene.image.save(world.images / f"{part}_{k}.jpg", quality=90)
            for thing in scene.objects:
                x0, y0, x1, y1 = thing.box
                entry = {"image_id": k + 1, "category_id": pictographs.NAMES.index(thing.name) + 1}
                annotations.append({"id": len(annotations) + 1, "bbox": [x0, y0, x1 - x0, y1 - y0], **entry})
        categories = [{"id": k, "name": name} for k, name in enumerate(pictographs.NAMES, start=1)]
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    (folder / "novel.txt").write_text("\n".join(world.novel) + "\n")
    return world


def test_a_head_with_tiles_finds_novel_small_objects_better_than_tiles_of_plain_clip(tmp_path: Path) -> None:
    ours, theirs = novel_of_both(write_toyworld(tmp_path, 240, 200, seed=0), 0, Tiles(3, 3), epochs=5)
    assert ours > theirs + 2


def test_novel_large_objects_are_found_as_well_as_by_plain_clip(tmp_path: Path) -> None:
    ours, theirs = novel_of_both(write_postcards(tmp_path, 300, 300, seed=0), 0, None, epochs=8)
    assert ours > theirs - 1
