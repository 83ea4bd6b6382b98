"""Find the image of a store that a name in a metadata file means."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from forclip.data.formats.common import UnusableEntry
from forclip.data.formats.file_names import FileNames
from forclip.path_text import path_to_text


class ImageNames:
    """Images by the names that people and tools give them in files."""

    def __init__(self, paths: Mapping[str, str], folders: Sequence[Path]) -> None:
        """paths: where each image is, by id; folders: that names may be relative to, the likeliest first."""
        self._ids = paths.keys()
        self._id_of = {path: image_id for image_id, path in paths.items()}
        self._folders = [FileNames(folder) for folder in dict.fromkeys(Path(os.path.abspath(f)) for f in folders)]
        self._alike: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        for image_id, path in paths.items():
            parts = _parts(path)
            self._alike[parts[-1]].append((parts, image_id))
            if stem := PurePosixPath(parts[-1]).stem:
                self._alike[f"{stem}/"].append(((*parts[:-1], stem), image_id))  # names without an ending

    def match(self, name: str) -> str:
        r"""Return the id of the image that a name means: the first of these that is an image.

        - an image's id, or its path, absolute or relative to one of the folders, as `FileNames` understands it (`\`,
          Windows paths, URLs, and the like);
        - the only image whose path ends with this name, in any case, also without its ending (.jpg).

        Raises UnusableEntry where there is none, or several.
        """
        if name in self._ids:
            return name
        if not name.strip():
            raise UnusableEntry("the row names no picture", name)
        for folder in self._folders:
            if image_id := self._id_of.get(path_to_text(os.path.normpath(os.path.join(folder.folder, name)))):
                return image_id
        for folder in self._folders:
            try:
                path = folder.resolve(name)
            except UnusableEntry:
                continue
            if image_id := self._id_of.get(path_to_text(path)):
                return image_id
        if name != name.strip():
            return self.match(name.strip())
        parts = _parts(name)
        found = [] if name.startswith("/") or not parts else self._ending_with(parts)
        if not found:
            raise UnusableEntry("no picture of the store has this name", name)
        if len(found) > 1:
            raise UnusableEntry("several pictures of the store have this name", name)
        return found[0]

    def _ending_with(self, parts: tuple[str, ...]) -> list[str]:
        for key in (parts[-1], f"{parts[-1]}/"):
            same = [image_id for other, image_id in self._alike.get(key, []) if other[-len(parts) :] == parts]
            if same:
                return same
        return []


def _parts(name: str) -> tuple[str, ...]:
    folded = normalize("NFC", name.replace("\\", "/")).casefold()
    return tuple(part for part in folded.split("/") if part not in ("", "."))
