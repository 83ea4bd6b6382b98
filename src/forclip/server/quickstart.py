"""Make a folder of pictures searchable at once: an empty store that is served while a thread fills it."""

from collections.abc import Callable
from pathlib import Path

from forclip.bucket_path import store_path
from forclip.config import ComputeChoice, ModelConfig
from forclip.data.images.listing import VIDEO
from forclip.embedding.ingest import IndexSummary, index_images
from forclip.embedding.list_source import find_images
from forclip.embedding.run_options import RunOptions
from forclip.embedding.store_options import StoreOptions
from forclip.index.create_store import has_store
from forclip.index.roots import Roots
from forclip.models.compute import resolve_compute
from forclip.progress import Advance, Track
from forclip.search.searcher import AnySearcher, Searcher, open_searcher
from forclip.server.indexing import Indexing

# Images that are stored at once on a CPU, which takes some ten seconds for them; a GPU is as fast as it stores them.
_IMAGES_PER_COMMIT = 32


def default_store(source: str) -> Path:
    """Return where the store of a folder is by default: beside it. Raises ValueError for what is no local folder."""
    folder = Path(source)
    if "://" in source or not folder.is_dir():
        raise ValueError(f"{source}: no folder on this machine" + ("; give --to STORE" if "://" in source else ""))
    absolute = folder.absolute()
    return absolute.with_name(f"{absolute.name or 'pictures'}.store")


def prepare_store(
    source: str, to: str | Path, model: ModelConfig | None, device: str = "cpu", compute: ComputeChoice = "auto"
) -> AnySearcher:
    """Open the store of a folder, or create an empty one, and load its model.

    model: of a new store; None stands for the default. Raises ValueError where the source has no picture and no video,
    and as `load_model` and `open_searcher` do.
    """
    place = store_path(to)
    listing = find_images(source, None)
    if not listing.pictures and VIDEO not in listing.left_out:
        raise ValueError(listing.why_empty(source))
    if has_store(place):
        return open_searcher(str(place), device, model, compute)
    options = StoreOptions(place, model, *(None,) * 7, resolve_compute(compute, device))
    loaded = options.load(None, device)
    return Searcher(options.create(loaded, 1.0, Roots()), loaded)


def index_in_background(
    source: str,
    to: str | Path,
    searcher: AnySearcher,
    device: str,
    compute: ComputeChoice,
    track: Track,
    on_end: Callable[[IndexSummary | str], None],
) -> Indexing:
    """Return what indexes a folder into its prepared store, with the model that searches it.

    track: shows the progress elsewhere, too; on_end: as `Indexing` takes it.
    """

    def index(shown: Track) -> IndexSummary:
        run = RunOptions(images_per_commit=_IMAGES_PER_COMMIT if device == "cpu" else None)
        return index_images(
            source, to, device=device, compute=compute, run=run, loaded=searcher.model, track=both(shown, track)
        )

    return Indexing(source, index, on_end)


def both(first: Track, second: Track) -> Track:
    """Return a Track that reports to two."""

    def track(description: str, total: int) -> Advance:
        advances = first(description, total), second(description, total)

        def advance(count: int) -> None:
            for each in advances:
                each(count)

        return advance

    return track
