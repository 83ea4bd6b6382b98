"""The benchmark of embedding on a CPU runs: both sides embed the files that it writes."""

from pathlib import Path

import pytest

from benchmarks import embed_speed
from forclip.models.mini_clip import MINI_NAME
from forclip.search.searcher import torch_threads
from forclip.types import ImageEmbeddings


def test_both_sides_embed_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed_speed, "SIZES", {"small": (64, 48)})
    monkeypatch.setenv("EMBED_SPEED_CLOCK", "cpu")
    files = embed_speed.write_files(tmp_path, 3, ["small"])["small"]
    result = embed_speed.ours(MINI_NAME, "float32")(files)
    assert isinstance(result, tuple)
    assert isinstance(result[0], ImageEmbeddings)
    assert len(result[0]) == 3
    with torch_threads(1):
        settings = embed_speed.open_clip_alone(MINI_NAME, "float32")(files)
    assert isinstance(settings, tuple)
    assert settings[0] == 1
