"""Which settings are recommended to make a store smaller."""

from pathlib import Path

import pytest

from forclip.embedding.describe_store import describe_store, store_facts
from forclip.index.advice import MEASURED_CHANGES, MOST_LOST, recommended, smaller_settings
from forclip.index.capacity import Stored, disk_bytes
from forclip.index.image_index import Index
from tests.index.made import HEADER, files, names, some

MILLION = Stored(1_000_000, 25, 512, "fp16")


def test_settings_that_make_a_store_smaller() -> None:
    settings = smaller_settings(MILLION, "sq8", None)
    sizes = [setting.bytes_per_image for setting in settings]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < 0.9 * disk_bytes(MILLION, "sq8") / 1e6
    in_place = {setting.options: setting.bytes_per_image for setting in settings if not setting.new}
    one_bit = 25 * (512 / 8 + 8 + 8)
    assert in_place["--index rabitq1"] == pytest.approx(2 * 25 * (1024 + 8) + 283 + one_bit, rel=0.01)
    best = recommended(settings)
    assert best is not None
    assert best.change >= -MOST_LOST
    assert all(best.bytes_per_image <= s.bytes_per_image for s in settings if s.change >= -MOST_LOST)


def test_what_a_store_has_is_not_recommended() -> None:
    eight_bits = Stored(1_000_000, 22, 512, "int8")
    assert smaller_settings(eight_bits, "rabitq1", 0.98) == []
    assert {s.options.split(",")[0] for s in smaller_settings(eight_bits, "rabitq1", None)} <= {
        f"--precision int8 --merge {cosine}" for _, cosine in MEASURED_CHANGES if cosine is not None
    }
    assert smaller_settings(Stored(0, 0, 512, "fp16"), None, None) == []
    assert recommended([]) is None


def test_info_shows_them(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "s", HEADER)
    index.add(some(names(30)), files(names(30)))
    contents = describe_store(index)
    assert [s["options"] for s in contents["smaller"]] == [
        s.options for s in smaller_settings(Stored(30, contents["vectors"] / 30, 16, "fp16"), None, None)
    ]
    labels = [fact.label for fact in store_facts(tmp_path / "s", contents)]
    assert ("smaller" in labels) == bool(contents["smaller"])
    assert describe_store(Index.create(tmp_path / "empty", HEADER))["smaller"] == []
