"""Word lists for pseudo-labels, and the comparison of words written in different ways."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from forclip.config import read_names
from forclip.location import is_at_url

SHIPPED = ("lvis",)  # its source is given in vocabularies/LICENSE-lvis.txt
_FOLDER = Path(__file__).parent / "vocabularies"


def load_vocabulary(source: str | Path | None, novel: Iterable[str] = ()) -> tuple[str, ...]:
    """Load a shipped list by its name, or a file with one name a line. None gives no names.

    novel: names that training must not see. A shipped list leaves out every name that means one of them, by its
    synonyms too (COCO's couch is LVIS's sofa); a file is used unchanged. Raises ValueError if `source` is neither a
    shipped list nor a readable file.
    """
    if source is None:
        return ()
    if str(source) in SHIPPED:
        lines = (line.split("\t") for line in read_names(_FOLDER / f"{source}_synonyms.txt"))
        synonyms, excluded = {first: rest for first, *rest in lines}, WordSet(novel)
        names = read_names(_FOLDER / f"{source}.txt")
        return tuple(n for n in names if not any(word in excluded for word in (n, *synonyms.get(n, ()))))
    if not is_at_url(Path(source)) and not Path(source).exists():
        raise ValueError(f"{source}: no such file of names, and no shipped vocabulary; shipped: {', '.join(SHIPPED)}")
    return read_names(Path(source))


class WordSet:
    """A set of words that ignores case, the kind of space, and LVIS's parentheses.

    `bus` and `bus (vehicle)` are one word; `bow (weapon)` and `bow (decorative ribbons)` are two.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._full = {normalise_word(word) for word in words}
        self._bare = {_without_parentheses(word) for word in self._full}

    def __contains__(self, word: str) -> bool:
        normalised = normalise_word(word)
        return normalised in self._full or normalised in self._bare or _without_parentheses(normalised) in self._full


def normalise_word(word: str) -> str:
    """Fold case, turn underscores into spaces, and collapse spaces."""
    return " ".join(word.replace("_", " ").casefold().split())


def _without_parentheses(normalised: str) -> str:
    """Remove what is in parentheses, unless nothing else is left."""
    return " ".join(re.sub(r"\([^)]*\)", " ", normalised).split()) or normalised


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return an ending for an error message that suggests similar names, or an empty string."""
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
