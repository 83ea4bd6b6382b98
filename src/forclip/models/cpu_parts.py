"""Run images on the cores of a CPU: each core takes a few images at a time, and never waits for another core.

One thread per core computes some images from pixels to vectors. Splitting each operation among all cores, as PyTorch
does by itself, makes every core wait for the slowest one a hundred times an image, which a busy machine makes slow.
How many images a core takes is measured on the images of the job: too many do not fit into its cache.
"""

import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import blake2b
from pathlib import Path
from threading import Barrier, Lock
from typing import TypeVar

import torch
from torch import Tensor

from forclip.atomic_write import write_text_atomically
from forclip.index.local_cache import cache_folder
from forclip.models.compute import compute_of

Result = TypeVar("Result")

DEFAULT_SIZE = 8
_SIZES = (16, 8, 4, 2, 1)
_REPEATS = 2
_UNMEASURED = 256  # images of a job before it measures: a shorter one would gain nothing
_NEARLY_BEST = 1.05  # times the least time; of sizes that are as good, the smallest shares work most evenly
_FOLDER = "images_at_once"
_GIVEN = "FORCLIP_IMAGES_AT_ONCE"


class CpuParts:
    """Runs a function of images on all cores, in parts of as many images as the model is fastest with.

    Parts change results in the last bits only. size: images of a part at most.
    """

    def __init__(self, backbone: object, size: int | None = None) -> None:
        """size: None for FORCLIP_IMAGES_AT_ONCE, or what an earlier job of this model measured on this machine.

        Raises ValueError for a FORCLIP_IMAGES_AT_ONCE that is no number above 0.
        """
        self._name, self._compute = str(getattr(backbone, "name", "")), compute_of(backbone)
        self._given = size or _given_size()
        self.size = self._given or DEFAULT_SIZE
        self._measure: _Measurement | None = None
        self._count = 0

    def run(self, run: Callable[[Tensor], Result], inputs: Tensor, may_measure: bool = False) -> list[Result]:
        """Return the results of parts of the inputs [B, ...], in order. Raises what `run` raises.

        The threads of PyTorch in the calling thread say on how many cores. Fewer inputs than that are one part.
        may_measure: whether this may find out how many images a part should have, and so change the last bits.
        """
        threads = torch.get_num_threads()
        if len(inputs) < threads or not len(inputs):
            return [run(inputs)]
        is_pixels = self._given is None and inputs.ndim == 4
        parts = self._measured_parts(inputs, may_measure) if is_pixels else None
        parts = parts or _even_parts(inputs, self.size, threads)
        measure = self._measure

        def run_one(part: Tensor) -> Result:
            start = time.thread_time()
            with torch.inference_mode():
                result = run(part)
            if measure is not None:
                measure.add(len(part), time.thread_time() - start)
            return result

        results = list(map(run_one, parts) if threads == 1 else _pool(threads).map(run_one, parts))
        if measure is not None and measure.is_complete:
            self.size = measure.save()
            self._measure = None
        return results

    def _measured_parts(self, inputs: Tensor, may_measure: bool) -> Sequence[Tensor] | None:
        """Return parts of all sizes while this job measures, else None."""
        if not self._count:
            self._kind = f"{self._name} {self._compute} {'x'.join(map(str, inputs.shape[1:]))}"
            self.size = _known_size(self._kind) or self.size
        self._count += len(inputs)
        if not may_measure or self._count <= _UNMEASURED or _known_size(self._kind) is not None:
            return None
        self._measure = self._measure or _Measurement(self._kind)
        return inputs.split(self._measure.missing(len(inputs)))


class _Measurement:
    """CPU seconds for an image, by the images of a part. Of the thread alone: other programs change it little."""

    def __init__(self, kind: str) -> None:
        self._kind, self._lock = kind, Lock()
        self._seconds: dict[int, list[float]] = defaultdict(list)

    def add(self, size: int, seconds: float) -> None:
        with self._lock:
            self._seconds[size].append(seconds / size)

    def missing(self, count: int) -> list[int]:
        """Return sizes of parts of so many images in all, first those that were not measured often enough."""
        wanted = [size for size in _SIZES for _ in range(_REPEATS - len(self._seconds[size]))]
        sizes = list[int]()
        while count > 0:
            sizes.append(min(wanted.pop(0) if wanted else DEFAULT_SIZE, count))
            count -= sizes[-1]
        return sizes

    @property
    def is_complete(self) -> bool:
        return all(len(self._seconds[size]) >= _REPEATS for size in _SIZES)

    def save(self) -> int:
        """Return the best size, and write it for later jobs if the cache's folder can be written to."""
        least = {size: min(self._seconds[size]) for size in _SIZES}
        best = min(size for size, seconds in least.items() if seconds <= _NEARLY_BEST * min(least.values()))
        content = {"kind": self._kind, "machine": _machine(), "images_at_once": best, "cpu_seconds_per_image": least}
        file = _file(self._kind)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text_atomically(file, json.dumps(content, indent=1) + "\n")
        except OSError:
            pass
        _known[file] = best
        return best


def _given_size() -> int | None:
    text = os.environ.get(_GIVEN)
    if not text:
        return None
    if not text.isdecimal() or not int(text):
        raise ValueError(f"{_GIVEN} must be a number of images, not {text!r}")
    return int(text)


_known: dict[Path, int | None] = {}


def _known_size(kind: str) -> int | None:
    """Return what an earlier job measured on this machine, None if there was none."""
    file = _file(kind)
    if file not in _known:
        try:
            content = json.loads(file.read_text())
            size = content["images_at_once"] if content["machine"] == _machine() else None
            _known[file] = size if size in _SIZES else None
        except (OSError, ValueError, KeyError, TypeError):
            _known[file] = None
    return _known[file]


def _file(kind: str) -> Path:
    digest = blake2b(f"{kind}\n{_machine()}".encode(), digest_size=8).hexdigest()
    return cache_folder() / _FOLDER / f"{digest}.json"


@cache
def _machine() -> str:
    """The processor, its number of cores and PyTorch's version."""
    return f"{_processor()}, {os.cpu_count()} cores, PyTorch {torch.__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _even_parts(inputs: Tensor, size: int, threads: int) -> Sequence[Tensor]:
    """Cut inputs into parts of at most `size`, of nearly equal sizes, and as many on each thread."""
    count = -(-len(inputs) // size)
    count = min(len(inputs), -(-count // threads) * threads)
    return inputs.tensor_split(count)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads in each of which PyTorch has one thread."""
    pool, started = ThreadPoolExecutor(threads, "images"), Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # the first call in a thread sets its number
        torch.set_num_threads(1)
        started.wait()

    for _ in range(threads):
        pool.submit(start)
    started.wait()
    torch.set_num_threads(threads)  # new threads begin with the number that was set last
    return pool
