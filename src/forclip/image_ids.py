"""What `forclip index` calls a picture in a store: its absolute path."""

import os
from pathlib import Path


def as_id(path: Path) -> str:
    """The absolute path as text; bytes of a name that is not UTF-8 are escaped, so that no two names meet."""
    return os.path.abspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
