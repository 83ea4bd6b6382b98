"""Read the sizes of many pictures."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from forclip.data.images.decode import image_size
from forclip.location import Location, as_location, is_at_url

_AT_ONCE = 16  # requests

ImageSizes = Callable[[Sequence[Path]], "list[tuple[int, int] | None]"]


def image_sizes(paths: Sequence[Location]) -> list[tuple[int, int] | None]:
    """Return the size of each picture, as `image_size` does; of those at URLs by several requests at once."""
    locations = [as_location(path) for path in paths]
    if not any(map(is_at_url, locations)):
        return [image_size(location) for location in locations]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(image_size, locations))
