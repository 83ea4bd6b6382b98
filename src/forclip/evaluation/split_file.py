"""split.json: which classes a run was trained with, and which are novel to it, beside its model."""

import json
from pathlib import Path

from forclip.atomic_write import write_text_atomically
from forclip.types import ClassSplit

SPLIT_FILE = "split.json"


def write_split(run: Path, split: ClassSplit) -> None:
    """Into the run's folder."""
    write_text_atomically(run / SPLIT_FILE, json.dumps({"base": split.base, "novel": split.novel}, indent=1))


def read_split(run: Path) -> ClassSplit | None:
    """None where the folder holds none. Raises ValueError, naming the file, for a damaged one."""
    file = run / SPLIT_FILE
    try:
        content = json.loads(file.read_text())
        return ClassSplit(tuple(content["base"]), tuple(content["novel"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not readable as a split into base and novel classes: {error}") from None
