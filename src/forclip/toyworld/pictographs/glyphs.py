"""Objects drawn as glyphs of DejaVu Sans."""

from __future__ import annotations

from collections.abc import Callable

from .canvas import TINT, Canvas


def _glyph(text: str) -> Callable[[Canvas], None]:
    def draw(c: Canvas) -> None:
        c.glyph(TINT, text, 50, 50, 100)

    return draw


DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "telephone": _glyph("\u260e"),
    "airplane": _glyph("\u2708"),
    "anchor": _glyph("\u2693"),
    "scissors": _glyph("\u2702"),
    "chess knight": _glyph("\u265e"),
    "gear": _glyph("\u2699"),
    "snowflake": _glyph("\u2744"),
    "music note": _glyph("\u266b"),
    "recycling symbol": _glyph("\u267b"),
    "scales": _glyph("\u2696"),
    "wheelchair": _glyph("\u267f"),
}
