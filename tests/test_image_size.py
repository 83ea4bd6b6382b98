"""An image size is read from numbers, pairs and texts, and written back."""

import pytest

from forclip.config import ModelConfig
from forclip.image_size import ImageSize, describe_image_size, parse_image_size, rows_and_columns


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (336, 336),
        ("336", 336),
        ([288, 512], (288, 512)),
        ((288, 512), (288, 512)),
        ("288x512", (288, 512)),
        (" 288 X 512 ", (288, 512)),
        ([224, 224], 224),
        ("224x224", 224),
    ],
)
def test_an_image_size_is_a_number_or_rows_and_columns(given: object, expected: ImageSize) -> None:
    assert parse_image_size(given) == expected
    assert parse_image_size(describe_image_size(expected)) == expected
    assert ModelConfig(image_size=given) == ModelConfig(image_size=expected)  # type: ignore[arg-type]  # as files have it


@pytest.mark.parametrize("given", [[288], [1, 2, 3], "288x", "", "a", "1x2x3", True, 288.5, -3, {"rows": 2}, [[1], 2]])
def test_another_image_size_is_refused_with_its_value(given: object) -> None:
    with pytest.raises(ValueError, match="image_size") as error:
        parse_image_size(given)
    assert repr(given) in str(error.value)


def test_one_number_is_both_sides() -> None:
    assert rows_and_columns(336) == (336, 336)
    assert rows_and_columns((288, 512)) == (288, 512)
    assert parse_image_size(None) is None
