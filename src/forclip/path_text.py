"""File names as stored text: names whose bytes are not UTF-8 are escaped, and found again."""

import os
import re
from pathlib import Path

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_ESCAPED = re.compile(r"\\x([89a-f][0-9a-f])")


def path_to_text(path: str | os.PathLike[str]) -> str:
    r"""Return a path as UTF-8 text: a byte that is not UTF-8, such as E9, becomes `\xe9`."""
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    r"""Return a text for one line of a terminal: a line break becomes `\n`, an escape `\x1b`, as Python writes them.

    So do the characters that turn the direction of what follows, which hide how a file name ends.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def text_to_path(text: str) -> Path:
    """Return the file that a text of `path_to_text` names. A file whose own name has such an escape comes first."""
    name = unescape(text)
    return Path(text if name == text or os.path.lexists(text) else name)


def unescape(text: str) -> str:
    r"""Return a file name whose escapes, such as `\xe9`, are bytes again, in the form that Python has for them."""
    return _ESCAPED.sub(lambda escape: chr(0xDC00 + int(escape[1], 16)), text)
