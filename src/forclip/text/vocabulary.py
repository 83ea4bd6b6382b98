"""Names for pseudo-labels: a list that is shipped, or a file of one's own; and when two names are one word."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from forclip.config import read_names

SHIPPED = ("lvis",)  # vocabularies/LICENSE-lvis.txt says where it comes from
_FOLDER = Path(__file__).parent / "vocabularies"


def load_vocabulary(given: str | Path | None, novel: Iterable[str] = ()) -> tuple[str, ...]:
    """The names of a shipped list, by its name, or of a file with one a line; None: no names.

    novel: names that training must not hear of. A shipped list knows which of its names mean them (COCO's couch is
    LVIS's sofa) and leaves those out; a file is taken as it is. Raises ValueError for what is neither a list nor a
    readable file.
    """
    if given is None:
        return ()
    if str(given) in SHIPPED:
        return _shipped(str(given), SameWords(novel))
    if not Path(given).exists():
        raise ValueError(f"{given}: no such file of names, and no shipped vocabulary; shipped: {', '.join(SHIPPED)}")
    return read_names(Path(given))


def _shipped(name: str, without: "SameWords") -> tuple[str, ...]:
    lines = (line.split("\t") for line in read_names(_FOLDER / f"{name}_synonyms.txt"))
    synonyms = {first: others for first, *others in lines}
    names = read_names(_FOLDER / f"{name}.txt")
    return tuple(n for n in names if not any(word in without for word in (n, *synonyms.get(n, ()))))


class SameWords:
    """Some words, in whatever spelling: case, the kind of space and LVIS's parentheses don't count.

    `bus` and `bus (vehicle)` are one word; `bow (weapon)` and `bow (decorative ribbons)` are two.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._full = {spelling(word) for word in words}
        self._bare = {_bare(word) for word in self._full}

    def __contains__(self, word: str) -> bool:
        spelled = spelling(word)
        return spelled in self._full or spelled in self._bare or _bare(spelled) in self._full


def spelling(word: str) -> str:
    """What is left of a word when case and the kind of space don't count."""
    return " ".join(word.replace("_", " ").casefold().split())


def _bare(spelled: str) -> str:
    """Without what is in parentheses, unless nothing else is there."""
    return " ".join(re.sub(r"\([^)]*\)", " ", spelled).split()) or spelled


def did_you_mean(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
