"""Compare square inputs with wide ones of the same area, on wide pictures, with the mini CLIP and no training.

    python -m benchmarks.image_size

Each picture of 960 x 540 pixels shows two cluttered scenes side by side. Every pictograph is searched by its name.
mAP@50 is the mean over names; a hit is a picture in which the middle of the best region is in the object of that name.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from forclip.config import ModelConfig
from forclip.embedding.embed import embed_images
from forclip.evaluation.metrics import ranked_average_precision
from forclip.image_size import ImageSize, describe_image_size
from forclip.models.mini_clip import MINI_NAME
from forclip.models.retrieval_model import load_model
from forclip.toyworld import pictographs
from forclip.toyworld.scenes import PlacedObject, clutter
from forclip.types import Bools

SIZE, _SIDE, _TOP = (960, 540), 480, 30  # of a picture and of a scene in it, in pixels
_OBJECTS = 3  # per scene
COMPARED: tuple[tuple[ImageSize, ImageSize], ...] = ((96, (72, 128)), (192, (144, 256)))  # 144 and 576 positions


def draw(folder: Path, count: int) -> tuple[list[Path], Bools, list[dict[str, tuple[float, ...]]]]:
    """Write pictures. Returns their files, which names each shows [pictures, names], and the box of each name."""
    rng, files, boxes = np.random.default_rng(0), [], []
    for number in range(count):
        names = rng.choice(pictographs.NAMES, 2 * _OBJECTS, replace=False).tolist()
        picture = Image.new("RGB", SIZE, (128, 128, 128))
        placed: dict[str, tuple[float, ...]] = {}
        for left, part in ((0, names[:_OBJECTS]), (_SIDE, names[_OBJECTS:])):
            scene = clutter(rng, tuple(part), _SIDE)
            picture.paste(scene.image, (left, _TOP))
            placed |= {found.name: _moved(found, left) for found in scene.objects}
        files.append(folder / f"gallery_{number:05d}.jpg")
        picture.save(files[-1], quality=92)
        boxes.append(placed)
    shown = np.array([[name in placed for name in pictographs.NAMES] for placed in boxes])
    return files, shown, boxes


def _moved(found: PlacedObject, left: int) -> tuple[float, ...]:
    return tuple(edge + by for edge, by in zip(found.box, (left, _TOP, left, _TOP), strict=True))


def measure(
    size: ImageSize, files: list[Path], shown: Bools, boxes: list[dict[str, tuple[float, ...]]]
) -> tuple[float, float]:
    """Return mAP@50 and the share of hits, in percent."""
    model = load_model(ModelConfig(MINI_NAME, image_size=size))
    embeddings, _ = embed_images(model, files)
    assert embeddings.boxes is not None
    starts, precisions, hits = embeddings.offsets[:-1], [], []
    for column, name in enumerate(pictographs.NAMES):
        if not shown[:, column].any():
            continue
        scores = embeddings.vectors @ model.encode_query(name).numpy()
        best = [start + int(part.argmax()) for start, part in zip(starts, np.split(scores, starts[1:]), strict=True)]
        ranked = np.argsort(-scores[best], kind="stable")
        precisions.append(ranked_average_precision(shown[ranked, column], 50))
        for row in np.flatnonzero(shown[:, column]):
            x, y = embeddings.boxes[best[row]].reshape(2, 2).mean(0) * SIZE
            x0, y0, x1, y1 = boxes[row][name]
            hits.append(x0 <= x <= x1 and y0 <= y <= y1)
    return 100 * float(np.mean(precisions)), 100 * float(np.mean(hits))


def main() -> None:
    """Print a line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=150)
    with TemporaryDirectory() as folder:
        drawn = draw(Path(folder), parser.parse_args().images)
        for pair in COMPARED:
            for size in pair:
                precision, hits = measure(size, *drawn)
                print(f"{describe_image_size(size):>8s}  mAP@50 {precision:5.1f}  hits {hits:5.1f}", flush=True)


if __name__ == "__main__":
    main()
