"""Divide a selection into images to train and to validate on."""

from dataclasses import replace
from hashlib import blake2b

from forclip.search.selection import Selection

PARTS = ("train", "val")


def part_of(image_id: str, share: float) -> str:
    """The part of an image, by its id alone: the same in every export. A larger share only moves images to train."""
    digest = blake2b(image_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return "train" if int.from_bytes(digest, "big") < share * 2**64 else "val"


def with_parts(selection: Selection, share: float) -> Selection:
    """Give each image its part. share: of the images to train on. Raises ValueError unless it is between 0 and 1."""
    if not 0 < share < 1:
        raise ValueError(f"the share to train on must be between 0 and 1, such as 0.8, not {share}")
    return replace(selection, items=tuple(replace(i, part=part_of(i.image_id, share)) for i in selection.items))


def one_part(selection: Selection, part: str) -> Selection:
    """The images of one part."""
    return replace(selection, items=tuple(item for item in selection.items if item.part == part))
