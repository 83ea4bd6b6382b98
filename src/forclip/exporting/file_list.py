"""A selection as a plain list of file names, one a line."""

from pathlib import Path

from forclip.exporting.selection import Selection


def write_files(selection: Selection, to: Path) -> None:
    """Raises ValueError for a name with a line end in it, which such a list can't hold."""
    names = [selection.name_of(item) for item in selection.items]
    for name in names:
        if "\n" in name or "\r" in name:
            raise ValueError(f"{name!r}: a list of files can't hold a name with a line end")
    to.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
