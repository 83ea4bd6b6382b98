"""A closer look at an image as a user asks for it: the file checked, the text asked for, told as JSON or as a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table

from forclip.combined_queries import CombinedQuery
from forclip.data.content import content_digest
from forclip.data.decode import read_image
from forclip.heatmap import Heatmap
from forclip.looking import Look, look_at
from forclip.search import Searcher


@dataclass(frozen=True)
class Seen:
    """What a look at a picture, in the frame of its stored pixels, found for a text."""

    image_id: str
    text: str
    picture: Image.Image
    look: Look
    heatmap: Heatmap


def look_for(searcher: Searcher, image_id: str, text: str) -> Seen:
    """An image of the store. Raises ValueError for one that is not in it, whose file changed since it was indexed or
    can't be read, and for an empty text."""
    index = searcher.index
    file = index.files_of([image_id]).get(image_id)
    numbers = index.store.numbers("id = '" + image_id.replace("'", "''") + "'")
    if file is None or not len(numbers):
        raise ValueError(f"{image_id}: is not in {index.store.folder}; forclip index adds pictures")
    asked, none = searcher.encode_text(text), np.zeros((0, searcher.model.dim), np.float32)
    look = look_at(index, int(numbers[0]), CombinedQuery(asked[None], none, none))
    picture = read_image(Path(image_id))
    if file.content_hash and content_digest(Path(image_id)) != file.content_hash:
        raise ValueError(f"{image_id}: has changed since it was indexed; forclip index renews it")
    assert look is not None
    return Seen(image_id, text, picture, look, searcher.heatmap(picture, look.vectors[look.winner]))


def seen_json(seen: Seen) -> dict[str, Any]:
    """Places in the order of the image's vectors, the number of the one that answers, and its heatmap."""
    pairs = zip(seen.look.boxes.tolist(), seen.look.scores.tolist(), strict=True)
    return {
        "image_id": seen.image_id,
        "text": seen.text,
        "winner": seen.look.winner,
        "places": [{"box": box, "score": score} for box, score in pairs],
        "heatmap": {
            "values": seen.heatmap.values.tolist(),
            "frame": seen.heatmap.frame,
            "agreement": seen.heatmap.agreement,
        },
    }


def seen_table(seen: Seen) -> Table:
    """Places, best first."""
    table = Table("score", "place (x0 y0 x1 y1)", "", title=f"{seen.text!r} in {Path(seen.image_id).name}")
    for row in np.argsort(-seen.look.scores, kind="stable").tolist():
        place = " ".join(f"{edge:.2f}" for edge in seen.look.boxes[row])
        table.add_row(f"{seen.look.scores[row]:.3f}", place, "answers" if row == seen.look.winner else "")
    return table
