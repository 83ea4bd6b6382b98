"""Indexing holds a bounded queue of pictures, however many there are and however large."""

import os
import re
import resource
from pathlib import Path

from PIL import Image

from forclip.config import ModelConfig
from forclip.embedding.ingest import index_images
from forclip.index.image_index import Index
from tests.child import run_in_child

_SIDES = 4000, 3000  # 36 MB when they are decoded
_JPEGS, _BITMAPS = 284, 16  # JPEGs are decoded at a reduced size, the others in full: 580 MB in all
_MEGABYTES = 400  # two threads with a picture each and copies of it, and four batches of small tensors


def index_and_print_memory(photos: str, to: str) -> None:
    """Run by the test in a child process: print by how many megabytes memory grew, and the number of images."""
    index_images(str(Path(photos) / "0.png"), to, model=ModelConfig("forclip-mini"), num_query_tokens=4)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * resource.getpagesize()
    index_images(photos, to)
    # Not getrusage: its peak includes that of the parent when it forked.
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    grown = 1024 * int(peak) - before
    print(grown / 1e6, len(Index(to)))


def test_three_hundred_large_pictures_are_never_in_memory_together(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = Image.new("RGB", _SIDES, "teal")
    for suffix, count in (("jpg", _JPEGS), ("png", _BITMAPS)):
        first = photos / f"0.{suffix}"
        picture.save(first)
        for number in range(1, count):
            os.link(first, photos / f"{number}.{suffix}")
    finished = run_in_child(index_and_print_memory, photos, tmp_path / "s")
    assert finished.returncode == 0, finished.stderr
    grown, images = finished.stdout.split()
    assert int(images) == _JPEGS + _BITMAPS
    assert float(grown) < _MEGABYTES
