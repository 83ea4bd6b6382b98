"""The images that a run was trained on, by content, so that a gallery that holds them can say so."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from forclip.atomic_write import write_text_atomically
from forclip.data.images.content import content_digest
from forclip.location import Location

TRAINING_IMAGES_FILE = "training_images.txt"


def write_training_images(run: Path, paths: Sequence[Location]) -> None:
    """Write the digests of the training images' content into a run's folder, one per line."""
    digests = sorted({digest for path in paths if (digest := content_digest(path))})
    write_text_atomically(run / TRAINING_IMAGES_FILE, "".join(f"{digest}\n" for digest in digests))


def read_training_images(run: Path) -> frozenset[str] | None:
    """Read the digests of a run's training images; None for a run without them, such as one of an older forclip."""
    try:
        return frozenset((run / TRAINING_IMAGES_FILE).read_text(encoding="utf-8", errors="replace").split())
    except (FileNotFoundError, NotADirectoryError):
        return None


def count_training_images(run: Path, paths: Iterable[Location]) -> int | None:
    """Return how many files a run was trained on, by their content; None if the run does not say."""
    digests = read_training_images(run)
    return None if digests is None else sum(content_digest(path) in digests for path in paths)


def describe_training_images(count: int) -> str:
    """Say in one sentence what training images in a gallery mean."""
    images, verb = ("1 image", "was") if count == 1 else (f"{count} images", "were")
    return f"{images} of this gallery {verb} used in training, so the results are better than on new images"
