"""How long annotation files of COCO's and LVIS' size take to load, and how much memory, from JSON and from the cache.

    python benchmarks/load_annotations.py [--rounds 2] [--scale 1.0] [--folder DIR] [--out FILE]

The files are generated, with the counts and about the bytes of the real ones: instances_train2017.json and
lvis_v1_train.json, polygons included, values at random from a fixed seed. Each load has a fresh process to itself, that
says its wall-clock and CPU seconds, without the start of Python and the imports, and its peak resident memory, with
them. CPU seconds hardly see the other programs of a machine that is shared. The files have been written just before, so
they may come from the system's memory instead of the disk. With --json, Python's own reading of the same file, without
any check or conversion, is measured too; for LVIS it takes 8 GB.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from forclip.atomic_write import write_text_atomically
from forclip.data.annotation_cache import cached_annotations
from forclip.data.formats.coco import load_coco
from forclip.data.formats.lvis import load_lvis
from forclip.types import Annotations

_LOAD: dict[str, Callable[[Path, Path], Annotations]] = {"coco": load_coco, "lvis": load_lvis}
_LIBRARIES = ("msgspec", "numpy", "safetensors")
_POLYGONS = 2000  # different ones, drawn from again and again


@dataclass(frozen=True)
class Shape:
    """polygon_points: the mean, such that the file has about the real one's bytes; negatives: the mean of an image."""

    images: int
    boxes: int
    classes: int
    polygon_points: int
    negatives: int

    def scaled(self, scale: float) -> "Shape":
        return Shape(
            int(self.images * scale), int(self.boxes * scale), self.classes, self.polygon_points, self.negatives
        )


@dataclass(frozen=True)
class Limit:
    seconds: float
    gigabytes: float


@dataclass(frozen=True)
class Load:
    """seconds, cpu_seconds: one per round; peak_gigabytes: the most of all rounds, of resident memory."""

    file: str
    source: str
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    peak_gigabytes: float
    limit: Limit | None


SHAPES = {"coco": Shape(118_287, 860_001, 80, 22, 0), "lvis": Shape(100_170, 1_270_141, 1203, 46, 9)}
LIMITS = {
    ("coco", "annotation file"): Limit(20, 4),
    ("coco", "cache"): Limit(3, 4),
    ("lvis", "annotation file"): Limit(60, 8),
    ("lvis", "cache"): Limit(3, 8),
}


def write_annotations(file: Path, kind: str, shape: Shape) -> None:
    """Entries as they stand in the real files, written one by one."""
    rng = random.Random(0)
    with file.open("w") as out:
        out.write('{"info": {}, "licenses": [], "categories": ')
        _write_list(out, (_category(k, kind) for k in range(1, shape.classes + 1)))
        out.write(', "images": ')
        _write_list(out, (_image(k, kind, shape, rng) for k in range(1, shape.images + 1)))
        out.write(', "annotations": ')
        polygons = [_polygon(rng, shape.polygon_points) for _ in range(_POLYGONS)]
        _write_list(out, (_annotation(k, kind, shape, rng, polygons) for k in range(1, shape.boxes + 1)))
        out.write("}")


def _write_list(out: TextIO, entries: Iterator[str]) -> None:
    out.write("[" + next(entries, ""))
    out.writelines(f", {entry}" for entry in entries)
    out.write("]")


def _category(k: int, kind: str) -> str:
    plain = f'"id": {k}, "name": "class_{k}"'
    if kind == "coco":
        return f'{{"supercategory": "thing", {plain}}}'
    synonyms = f'"synonyms": ["class_{k}", "other_name_of_{k}"], "frequency": "{"rcf"[k % 3]}"'
    return f'{{{plain}, {synonyms}, "synset": "class.n.01", "def": "a class", "image_count": 7, "instance_count": 9}}'


def _image(k: int, kind: str, shape: Shape, rng: random.Random) -> str:
    url = f'"coco_url": "http://images.cocodataset.org/train2017/{k:012}.jpg"'
    flickr = f'"flickr_url": "http://farm9.staticflickr.com/8186/{k:010}_{k:010x}_z.jpg"'
    plain = f'"license": 3, {url}, "height": 480, "width": 640, "date_captured": "2013-11-14 17:02:52", {flickr}'
    if kind == "coco":
        return f'{{{plain}, "file_name": "{k:012}.jpg", "id": {k}}}'
    negatives = [rng.randint(1, shape.classes) for _ in range(rng.randint(0, 2 * shape.negatives))]
    return f'{{{plain}, "neg_category_ids": {negatives}, "not_exhaustive_category_ids": {negatives[:1]}, "id": {k}}}'


def _polygon(rng: random.Random, points: int) -> str:
    return str([round(rng.uniform(0, 640), 2) for _ in range(2 * rng.randint(3, 2 * points - 3))])


def _annotation(k: int, kind: str, shape: Shape, rng: random.Random, polygons: Sequence[str]) -> str:
    x, y, width, height = (rng.randrange(32_000) / 100 for _ in range(4))
    crowd = "" if kind == "lvis" else '"iscrowd": 0, '
    return (
        f'{{"segmentation": [{rng.choice(polygons)}], "area": {width * height / 2:.4f}, {crowd}'
        f'"image_id": {rng.randint(1, shape.images)}, "bbox": [{x}, {y}, {width}, {height}], '
        f'"category_id": {rng.randint(1, shape.classes)}, "id": {k}}}'
    )


def load_once(kind: str, source: str, file: Path) -> tuple[float, float, float]:
    """Wall-clock and CPU seconds of one load in this process, and the process's peak resident memory in gigabytes."""
    start, cpu_start = time.perf_counter(), time.process_time()
    if source == "json":
        json.loads(file.read_bytes())
    else:
        cache = file.with_suffix(".cache") if source == "cache" else None
        cached_annotations(file, file.parent / "images", kind, _LOAD[kind], cache)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, cpu_seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure(kind: str, source: str, file: Path, rounds: int) -> Load:
    """Rounds of fresh processes; before those from the cache, one more that writes it."""
    command = [sys.executable, __file__, "--load", kind, source, str(file)]
    runs = rounds + (source == "cache")
    found = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(runs)]
    seconds, cpu_seconds, gigabytes = zip(*found[-rounds:], strict=True)
    return Load(kind, source, seconds, cpu_seconds, max(gigabytes), LIMITS.get((kind, source)))


def measure_all(folder: Path, given: argparse.Namespace, console: Console) -> tuple[list[Load], dict[str, float]]:
    """All loads, and the megabytes of each generated file."""
    loads, megabytes = [], {}
    for kind, shape in SHAPES.items():
        file = folder / f"{kind}.json"
        write_annotations(file, kind, shape.scaled(given.scale))
        megabytes[kind] = file.stat().st_size / 1e6
        for source in ("annotation file", "cache", *(("json",) if given.json else ())):
            loads.append(measure(kind, source, file, given.rounds))
            console.print(f"{kind}, {source}: {min(loads[-1].seconds):.2f} s, {loads[-1].peak_gigabytes:.2f} GB")
        file.unlink()
    return loads, megabytes


def print_table(console: Console, loads: Sequence[Load], megabytes: dict[str, float]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("file", "from"):
        table.add_column(column)
    for column in ("MB", "seconds", "at most", "CPU\nseconds", "peak GB", "at most"):
        table.add_column(column, justify="right", no_wrap=True)
    for load in loads:
        limits = (f"{load.limit.seconds:g}", f"{load.limit.gigabytes:g}") if load.limit else ("", "")
        seconds = f"{min(load.seconds):.2f}-{max(load.seconds):.2f}"
        cpu, peak = f"{min(load.cpu_seconds):.2f}", f"{load.peak_gigabytes:.2f}"
        table.add_row(load.file, load.source, f"{megabytes[load.file]:.0f}", seconds, limits[0], cpu, peak, limits[1])
    console.print(table)


def machine() -> dict[str, object]:
    """What the numbers depend on besides the code. load: runnable programs over the last minute."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return {
        "cpu": next((x.partition(": ")[2] for x in lines if x.startswith("model name")), platform.processor()),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def main() -> None:
    given = _arguments()
    if given.load:
        kind, source, file = given.load
        print(json.dumps(load_once(kind, source, Path(file))))
        return
    console, before = Console(), machine()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        loads, megabytes = measure_all(Path(folder), given, console)
    print_table(console, loads, megabytes)
    if given.out:
        shapes = {kind: asdict(shape.scaled(given.scale)) for kind, shape in SHAPES.items()}
        content = {"command": " ".join(["python", *sys.argv]), **before, "files": shapes, "megabytes": megabytes}
        write_text_atomically(given.out, json.dumps(content | {"loads": [asdict(x) for x in loads]}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="fresh processes for each load")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of images and boxes")
    parser.add_argument("--folder", type=Path, help="where the files are written, 1.6 GB; else the system's own place")
    parser.add_argument("--json", action="store_true", help="Python's own reading as well")
    parser.add_argument("--out", type=Path, help="a JSON file of the numbers, docs/results/load_annotations.json")
    parser.add_argument("--load", nargs=3, metavar=("KIND", "SOURCE", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
