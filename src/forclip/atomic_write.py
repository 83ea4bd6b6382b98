"""Write files so that a reader finds the whole file or none."""

import os
from pathlib import Path


def write_text_atomically(path: Path, text: str) -> None:
    """Writes beside the target, then renames. What UTF-8 cannot hold (file names of other encodings) becomes `?`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", errors="replace")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
