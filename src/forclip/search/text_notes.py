"""Say what a model does not understand of a text query: what is beyond its length, and other languages."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from forclip.models.registry import KNOWN_MODELS
from forclip.search.searcher import AnySearcher

_SHORT = 60  # bytes of UTF-8 that fit into every model's context, with a prompt template
_MOST_NAMED = 40  # characters of a text in a message
_OTHER_LANGUAGES = frozenset(m.architecture for m in KNOWN_MODELS if m.languages != "English")
_ENGLISH = frozenset(m.architecture for m in KNOWN_MODELS) - _OTHER_LANGUAGES


def text_notes(searcher: AnySearcher, texts: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence for each text that the searcher's model understands only in part, or not at all."""
    english = searcher.model.backbone.name in _ENGLISH
    notes = []
    for text in texts:
        if english and not _is_latin(text):
            notes.append(f"This model was trained on English texts: results for “{_short(text)}” are unreliable.")
        elif _is_cut(searcher, text):
            notes.append(f"“{_short(text)}” is too long for this model, which ignores its end. Use a shorter text.")
    return tuple(notes)


def _is_latin(text: str) -> bool:
    """Whether at least half of a text's letters are Latin ones. A text without letters, such as 7, is."""
    letters = [char for char in text if unicodedata.category(char)[0] == "L" or unicodedata.category(char) == "So"]
    latin = sum(unicodedata.name(char, "").startswith(("LATIN", "FULLWIDTH LATIN")) for char in letters)
    return 2 * latin >= len(letters)


def _is_cut(searcher: AnySearcher, text: str) -> bool:
    """Whether the text without its last word, or half of its only word, has the same vector."""
    text = text.strip()
    if len(text.encode("utf-8", "replace")) <= _SHORT:
        return False
    shorter = text.rsplit(None, 1)[0]
    shorter = shorter if shorter != text else text[: len(text) // 2]
    whole, part = searcher.encode_texts([text, shorter])
    return bool(np.allclose(whole, part, atol=1e-4))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MOST_NAMED else f"{text[: _MOST_NAMED - 2]} …"
