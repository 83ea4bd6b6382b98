"""Boxes around masks in COCO's run-length encoding."""

from itertools import accumulate

Box = tuple[float, float, float, float]


def box_of_run_lengths(segmentation: object) -> Box | None:
    """Return x, y, width, height around a mask, in pixels; None for an empty or damaged one, or another kind of value.

    segmentation: `size`, [height, width], and `counts`: the lengths of runs outside and inside in turn, column by
    column, as a list or compressed to a text as pycocotools does.
    """
    if not isinstance(segmentation, dict):
        return None
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return None
    height, width = size
    if isinstance(counts, str):
        counts = _decompress(counts)
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        return None
    ends = list(accumulate(counts))
    if not ends or ends[-1] != height * width:
        return None
    inside = [(end - count, end - 1) for end, count in zip(ends[1::2], counts[1::2], strict=True) if count]
    if not inside:
        return None
    left, right = inside[0][0] // height, inside[-1][1] // height
    # A run over the end of a column reaches from the lower to the upper edge.
    rows = [(0, height - 1) if a // height != b // height else (a % height, b % height) for a, b in inside]
    top, bottom = min(top for top, _ in rows), max(bottom for _, bottom in rows)
    return left, top, right + 1 - left, bottom + 1 - top


def _decompress(text: str) -> list[int] | None:
    """The run lengths of a compressed text: 5 bits a character, the lowest first; differences from the fourth one."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more follows
            continue
        if bits & 16:  # negative
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value, shift = 0, 0
    return counts if shift == 0 else None
