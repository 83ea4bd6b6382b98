"""Measure the time and the memory of loading annotation files of COCO's and LVIS' size, from JSON and from the cache.

    python -m benchmarks.load_annotations [--rounds 2] [--scale 1.0] [--folder DIR] [--out FILE]

Generates files with the counts and about the sizes of instances_train2017.json and lvis_v1_train.json, polygons
included, with random values from a fixed seed. Each load runs in a fresh process. Wall-clock and CPU seconds exclude
the start of Python and the imports; the peak of resident memory includes them. CPU seconds depend little on other
programs of the machine. The files were just written, so the system may read them from memory. --json also measures
json.loads of the same file, without checks or conversion; for LVIS it takes 8 GB.
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

from benchmarks.command import command_line
from forclip.atomic_write import write_text_atomically
from forclip.data.annotation_cache import cached_annotations
from forclip.data.formats.coco import load_coco, load_lvis
from forclip.types import Annotations

_LOAD: dict[str, Callable[[Path, Path], Annotations]] = {"coco": load_coco, "lvis": load_lvis}
_LIBRARIES = ("msgspec", "numpy", "safetensors")
_POLYGONS = 2000  # number of distinct polygons


@dataclass(frozen=True)
class Shape:
    """Counts of a generated file. polygon_points: mean per polygon, chosen to match the size of the real file;
    negatives: mean number of negative classes per image."""

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
    """The most that a load may take."""

    seconds: float
    gigabytes: float


@dataclass(frozen=True)
class Load:
    """Measurements of one way to load a file. seconds, cpu_seconds: one per round; peak_gigabytes: of resident memory,
    largest of all rounds."""

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
    """Write a file with entries like those of the real files."""
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
    """Load once in this process. Returns wall-clock and CPU seconds, and the process's peak memory in gigabytes."""
    start, cpu_start = time.perf_counter(), time.process_time()
    if source == "json":
        json.loads(file.read_bytes())
    else:
        cache = file.with_suffix(".cache") if source == "cache" else None
        cached_annotations(file, file.parent / "images", kind, _LOAD[kind], cache)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    unit = 1 if sys.platform == "darwin" else 1024  # Linux reports KiB
    return seconds, cpu_seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def measure(kind: str, source: str, file: Path, rounds: int) -> Load:
    """Load in a fresh process per round. With the cache as source, one more process writes it first."""
    command = [sys.executable, "-m", "benchmarks.load_annotations", "--load", kind, source, str(file)]
    runs = rounds + (source == "cache")
    loads = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(runs)]
    seconds, cpu_seconds, gigabytes = zip(*loads[-rounds:], strict=True)
    return Load(kind, source, seconds, cpu_seconds, max(gigabytes), LIMITS.get((kind, source)))


def measure_all(folder: Path, args: argparse.Namespace, console: Console) -> tuple[list[Load], dict[str, float]]:
    """Measure all loads. Also returns the megabytes of each generated file."""
    loads, megabytes = [], {}
    for kind, shape in SHAPES.items():
        file = folder / f"{kind}.json"
        write_annotations(file, kind, shape.scaled(args.scale))
        megabytes[kind] = file.stat().st_size / 1e6
        for source in ("annotation file", "cache", *(("json",) if args.json else ())):
            loads.append(measure(kind, source, file, args.rounds))
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
    """Describe the machine and the library versions. load: runnable programs over the last minute."""
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
    args = _arguments()
    if args.load:
        kind, source, file = args.load
        print(json.dumps(load_once(kind, source, Path(file))))
        return
    console, before = Console(), machine()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        loads, megabytes = measure_all(Path(folder), args, console)
    print_table(console, loads, megabytes)
    if args.out:
        shapes = {kind: asdict(shape.scaled(args.scale)) for kind, shape in SHAPES.items()}
        content = {"command": command_line(), **before, "files": shapes, "megabytes": megabytes}
        write_text_atomically(args.out, json.dumps(content | {"loads": [asdict(x) for x in loads]}, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="processes per load")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the numbers of images and boxes")
    parser.add_argument("--folder", type=Path, help="folder for the files (1.6 GB); default: temporary files")
    parser.add_argument("--json", action="store_true", help="also measure json.loads")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--load", nargs=3, metavar=("KIND", "SOURCE", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
