"""Texts that a model does not understand as a whole are named, and no others are."""

import numpy as np
import pytest

from forclip.search.output import describe_answer
from forclip.search.request import SearchRequest, run_search
from forclip.search.searcher import Searcher
from forclip.search.text_notes import text_notes


@pytest.mark.parametrize(
    "text", ["cat", "7", "Straße mit Bäumen", "a red umbrella on a wet street near a yellow house " * 2]
)
def test_english_and_other_short_texts_need_no_note(searcher: Searcher, text: str) -> None:
    limit = 32  # tokens that the model reads, with a start, an end and a template
    assert len(text.split()) < limit - 8
    assert text_notes(searcher, [text]) == ()


@pytest.mark.parametrize("text", ["dog " * 40 + "cat", "\n" + "x" * 900])
def test_a_text_whose_end_is_ignored_is_named(searcher: Searcher, text: str) -> None:
    changed = text.rstrip() + " snail"
    assert np.allclose(searcher.encode_text(text), searcher.encode_text(changed), atol=1e-4)
    (note,) = text_notes(searcher, [text])
    assert f"“{text.strip()[:20]}" in note
    assert len(note) < 150


@pytest.mark.parametrize("text", ["犬", "собака", "كلب", "🦉"])
def test_another_script_is_named_where_the_model_is_english(searcher: Searcher, text: str) -> None:
    answer = run_search(searcher, SearchRequest(any_of=("cat", text), k=3))
    (note,) = answer.notes
    assert text in note
    assert describe_answer(answer)[0] == note
