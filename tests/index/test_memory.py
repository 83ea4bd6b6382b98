import pytest

from forclip.index.memory import parse_memory


def test_memory_is_a_size_with_its_unit() -> None:
    sizes = {"4GB": 4 * 10**9, "500M": 500 * 10**6, "1.5 GiB": 3 << 29, "2000000": 2_000_000, " 1t ": 10**12}
    assert {text: parse_memory(text) for text in sizes} == sizes
    for text in ("", "16", "0GB", "16XB", "-1GB", "4G 2M"):  # 16 is a number without its unit
        with pytest.raises(ValueError, match="such as 4GB") as error:
            parse_memory(text)
        assert repr(text) in str(error.value)
