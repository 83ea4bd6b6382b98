"""Pictures in the terminal: each protocol's data, read back, show the sheet."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forclip.search.inline_pictures import Protocol, choose_protocol, contact_sheet, detect_protocol, encode_picture
from forclip.types import SearchResult


def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 4, (13, 50, 3)) * 85
    return Image.fromarray(pixels.astype(np.uint8))


def read_sixels(text: str) -> Image.Image:
    """A naive reader: one character after the other."""
    header = re.match(r'\x1bP[0-9;]*q"1;1;(\d+);(\d+)', text)
    assert header is not None
    assert text.endswith("\x1b\\")
    image = Image.new("RGB", (int(header[1]), int(header[2])))
    palette: dict[str, tuple[int, ...]] = {}
    x = y = 0
    colour = ""
    command = r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)(.)|([?-~])|(\$)|(-)"
    for found in re.finditer(command, text[header.end() : -2]):
        if found[1]:
            palette[found[1]] = tuple(round(int(percent) * 2.55) for percent in found.groups()[1:4])
        elif found[5]:
            colour = found[5]
        elif found[9]:
            x = 0
        elif found[10]:
            x, y = 0, y + 6
        else:
            end = x + int(found[6] or 1)
            for row in range(6):
                if (ord(found[7] or found[8]) - 63) >> row & 1:
                    image.paste(palette[colour], (x, y + row, end, y + row + 1))
            x = end
    return image


@pytest.mark.parametrize("protocol", ["kitty", "iterm", "sixel"])
def test_what_is_printed_is_the_picture(protocol: Protocol) -> None:
    drawn, text = picture(), encode_picture(picture(), protocol)
    if protocol == "sixel":
        read = read_sixels(text)
    else:
        chunks = re.findall(r"\x1b_G.*?m=([01]);(.*?)\x1b\\|File=[^:]*:(.*?)\x07", text)
        data = "".join(kitty or iterm for _, kitty, iterm in chunks)
        read = Image.open(io.BytesIO(base64.b64decode(data)))
        assert protocol == "iterm" or [more for more, _, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    assert read.size == drawn.size
    assert np.abs(np.asarray(read, int) - np.asarray(drawn, int)).max() <= 4  # sixels have percents


def test_a_sheet_shows_missing_pictures_and_at_most_twenty(tmp_path: Path) -> None:
    Image.new("RGB", (90, 30), "red").save(tmp_path / "a.png")
    results = [
        SearchResult(k + 1, "a", str(tmp_path / ("a.png" if k else "gone.png")), 0.5, None, k) for k in range(30)
    ]
    sheet = contact_sheet(results)
    assert sheet.size == (5 * 166 - 6, 4 * 166 - 6)
    assert sheet.getpixel((166 + 80, 80)) == (255, 0, 0)
    assert contact_sheet(results[:2]).size == (2 * 166 - 6, 160)


def test_terminals_are_recognised() -> None:
    assert detect_protocol({"TERM": "xterm-kitty"}) == "kitty"
    assert detect_protocol({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}) == "iterm"
    assert detect_protocol({"TERM": "foot"}) == "sixel"
    assert detect_protocol({"TERM": "dumb", "KITTY_WINDOW_ID": "1"}) is None
    assert detect_protocol({"TERM": "xterm-256color"}) is None
    assert detect_protocol({"TERM": "tmux-256color", "TMUX": "x", "TERM_PROGRAM": "iTerm.app"}) is None


def test_pictures_are_forced_or_left_out() -> None:
    assert choose_protocol("kitty") == "kitty"
    assert choose_protocol("none") is None
    assert choose_protocol("auto") is None  # the output of a test is no terminal
    with pytest.raises(ValueError, match="'ascii'"):
        choose_protocol("ascii")
