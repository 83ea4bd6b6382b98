"""Pictures in the terminal: the first results as one contact sheet, by kitty's, iTerm2's or the sixel protocol.

Sources: https://sw.kovidgoyal.net/kitty/graphics-protocol/, https://iterm2.com/documentation-images.html, and DEC's
manual of the VT330, chapter 14, for sixels.
"""

import base64
import io
import os
import re
import select
import sys
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

from forclip.data.images.decode import UnreadableImage, read_image
from forclip.location import parse_location
from forclip.types import SearchResult

Protocol = Literal["kitty", "iterm", "sixel"]

_COLUMNS, _SIDE, _GAP = 5, 160, 6  # pictures in a row; pixels
MOST_PICTURES = 20
_GROUND, _INK, _OUTLINE = (40, 40, 40), (255, 255, 255), (255, 176, 0)
_CHUNK = 4096  # bytes of base64 in one command of kitty's protocol
_ANSWER_SECONDS = 0.3
_KITTY, _ITERM, _SIXEL = ("kitty", "ghostty"), ("iterm.app", "wezterm", "mintty"), ("foot", "mlterm", "sixel")


def choose_protocol(wanted: str) -> Protocol | None:
    """Return the protocol to print pictures with, None for none.

    wanted: a protocol, `none`, or `auto` for what the terminal supports, as far as it says so. Raises ValueError for
    any other.
    """
    match wanted:
        case "kitty" | "iterm" | "sixel":
            return wanted
        case "none":
            return None
        case "auto":
            return detect_protocol(os.environ) if sys.stdout.isatty() else None
    raise ValueError(f"--pictures must be auto, none, {', '.join(get_args(Protocol))}, not {wanted!r}")


def detect_protocol(environment: Mapping[str, str]) -> Protocol | None:
    """Return the protocol of the terminal that an environment describes, or that answers for itself."""
    term, program = (environment.get(name, "").lower() for name in ("TERM", "TERM_PROGRAM"))
    if term == "dumb":
        return None
    if "TMUX" not in environment and "STY" not in environment:  # these pass nothing on that they don't know
        if "KITTY_WINDOW_ID" in environment or any(name in (term.removeprefix("xterm-"), program) for name in _KITTY):
            return "kitty"
        if program in _ITERM or environment.get("LC_TERMINAL", "").lower() == "iterm2":
            return "iterm"
        if any(name in term for name in _SIXEL):
            return "sixel"
    return "sixel" if "4" in _device_attributes() else None


def _device_attributes() -> list[str]:
    """Ask the terminal what it can do; an empty list if it does not answer. 4 stands for sixels."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        return []
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return []
    file = sys.stdin.fileno()
    before, answer = termios.tcgetattr(file), b""
    try:
        tty.setcbreak(file)
        sys.stdout.write("\x1b[c")
        sys.stdout.flush()
        while not answer.endswith(b"c") and select.select([file], [], [], _ANSWER_SECONDS)[0]:
            answer += os.read(file, 64)
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
    found = re.search(rb"\x1b\[\?([0-9;]*)c", answer)
    return [] if found is None else found[1].decode().split(";")


def contact_sheet(results: Sequence[SearchResult]) -> Image.Image:
    """Draw the pictures of at most MOST_PICTURES results with their ranks and regions. RGB, five in a row."""
    shown = results[:MOST_PICTURES]
    columns, rows = min(_COLUMNS, len(shown)), -(-len(shown) // _COLUMNS)
    step = _SIDE + _GAP
    sheet = Image.new("RGB", (columns * step - _GAP, rows * step - _GAP), _GROUND)
    draw = ImageDraw.Draw(sheet)
    for k, result in enumerate(shown):
        left, top = k % _COLUMNS * step, k // _COLUMNS * step
        try:
            picture = read_image(parse_location(result.uri)).convert("RGB")
        except (UnreadableImage, OSError):
            draw.text((left + _SIDE // 2, top + _SIDE // 2), "no image", _INK, anchor="mm")
        else:
            picture.thumbnail((_SIDE, _SIDE))
            x, y = left + (_SIDE - picture.width) // 2, top + (_SIDE - picture.height) // 2
            sheet.paste(picture, (x, y))
            if result.box is not None:
                x0, y0, x1, y1 = (e * s for e, s in zip(result.box, 2 * picture.size, strict=True))
                draw.rectangle((x + min(x0, x1), y + min(y0, y1), x + max(x0, x1), y + max(y0, y1)), outline=_OUTLINE)
        rank = str(result.rank)
        draw.rectangle(draw.textbbox((left + 3, top + 2), rank), fill=_GROUND)
        draw.text((left + 3, top + 2), rank, _INK)
    return sheet


def encode_picture(picture: Image.Image, protocol: Protocol) -> str:
    """Return the escape sequence that draws an RGB picture at the cursor."""
    match protocol:
        case "kitty":
            data = _png(picture)
            chunks = [data[k : k + _CHUNK] for k in range(0, len(data), _CHUNK)]
            keys = ["a=T,f=100,q=2,m=" if k == 0 else "m=" for k in range(len(chunks))]
            last = len(chunks) - 1
            return "".join(f"\x1b_G{keys[k]}{int(k < last)};{chunk}\x1b\\" for k, chunk in enumerate(chunks))
        case "iterm":
            size = f"width={picture.width}px;height={picture.height}px"
            return f"\x1b]1337;File=inline=1;{size}:{_png(picture)}\x07"
        case "sixel":
            return _sixels(picture)


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def _sixels(picture: Image.Image) -> str:
    """Return bands of six rows, of each colour a line of characters whose bits are the rows."""
    reduced = picture.quantize(256)
    pixels, palette = np.asarray(reduced), reduced.getpalette() or []
    parts = [f'\x1bP0;1q"1;1;{picture.width};{picture.height}']
    for colour in np.unique(pixels).tolist():
        percent = ";".join(str(round(value / 2.55)) for value in palette[3 * colour : 3 * colour + 3])
        parts.append(f"#{colour};2;{percent}")
    weights = 2 ** np.arange(6)[:, None]
    for top in range(0, picture.height, 6):
        band = pixels[top : top + 6]
        for colour in np.unique(band).tolist():
            codes = ((band == colour) * weights[: len(band)]).sum(0)
            line = "".join(chr(63 + int(code)) for code in codes)
            runs = re.sub(r"(.)\1{3,}", lambda run: f"!{len(run[0])}{run[1]}", line)
            parts.append(f"#{colour}{runs}$")
        parts.append("-")
    return "".join([*parts, "\x1b\\"])
