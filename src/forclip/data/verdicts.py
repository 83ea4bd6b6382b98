"""Right and wrong picks of a search, as labels beside a training set's own."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from forclip.data.formats.csv_labels import is_present, labels_of, read_table
from forclip.data.formats.paths import inside
from forclip.types import Annotations

Verdicts = Mapping[tuple[Path, str], bool]  # by picture (absolute) and label: whether it is shown


def read_verdicts(file: Path, image_folder: Path) -> dict[tuple[Path, str], bool]:
    """A CSV file as `forclip export --format csv` writes it, with `present` filled in.

    Columns image, label (or labels) and present, others are ignored. image: absolute, or relative to image_folder;
    a row whose present stands empty has not been judged. Raises ValueError, naming the file and the line, as load_csv
    does, for a file without a column present, and for a pair that is both right and wrong.
    """
    header, rows = read_table(file)
    if "present" not in header:
        raise ValueError(f"{file}: the header has no column present, 1 for right and 0 for wrong: {header}")
    said: dict[tuple[Path, str], bool] = {}
    for number, cells in rows:
        row, where = dict(zip(header, cells, strict=True)), f"{file}: line {number}"
        if not row["present"].strip():
            continue
        name, present = row["image"].strip(), is_present(where, row)
        path = Path(name) if os.path.isabs(name) else inside(image_folder, name, file, f"line {number}")
        for label in labels_of(row):
            if said.setdefault((Path(os.path.abspath(path)), label), present) != present:
                raise ValueError(f"{where} says of {label!r} in {name!r} the opposite of an earlier line")
    return said


def merge_verdicts(train: Annotations, gallery: Annotations, verdicts: Verdicts) -> Annotations:
    """The training set with these labels as well; where they contradict its own, they win.

    A pair that was judged is verified; of an image from outside the set nothing else is. A label that is no class yet
    becomes one, after the others, if a training image was found right for it; it is verified only where it was judged.
    Boxes of what was found wrong are dropped. Verdicts on gallery images are left out, for they are measured on; so are
    those on a class that is then novel, by whoever trains.
    """
    taken = usable_verdicts(train, gallery, verdicts)
    wider = _with_images(_with_classes(train, taken), taken)
    row = {Path(os.path.abspath(path)): k for k, path in enumerate(wider.paths)}
    column = {name: k for k, name in enumerate(wider.class_names)}
    labels, verified = wider.labels.copy(), wider.verified_mask.copy()
    for (path, label), present in taken.items():
        labels[row[path], column[label]] = present
        verified[row[path], column[label]] = True
    kept = labels[wider.box_images, wider.box_classes] | ~verified[wider.box_images, wider.box_classes]
    return replace(
        wider,
        labels=labels,
        verified=None if verified.all() else verified,
        boxes=wider.boxes[kept],
        box_images=wider.box_images[kept],
        box_classes=wider.box_classes[kept],
    )


def usable_verdicts(train: Annotations, gallery: Annotations, verdicts: Verdicts) -> dict[tuple[Path, str], bool]:
    """Those that are not on gallery images, of the classes there are and of new ones that some image shows."""
    searched = {Path(os.path.abspath(path)) for path in gallery.paths}
    ours = {pair: present for pair, present in verdicts.items() if pair[0] not in searched}
    shown = {*train.class_names, *(label for (_, label), present in ours.items() if present)}
    return {pair: present for pair, present in ours.items() if pair[1] in shown}


def describe_verdicts(verdicts: Verdicts, train: Annotations, gallery: Annotations) -> str:
    """One sentence: how many are used. train: before or after they were merged."""
    used = usable_verdicts(train, gallery, verdicts)
    right = sum(used.values())
    left = len(verdicts) - len(used)
    why = f"; {left} on gallery images, or on what no image shows, were left out" if left else ""
    return f"{len(used)} verdicts join the labels: {right} right, {len(used) - right} wrong{why}."


def _with_classes(train: Annotations, verdicts: Verdicts) -> Annotations:
    new = sorted({label for _, label in verdicts} - set(train.class_names))
    if not new:
        return train
    nothing = np.zeros((len(train), len(new)), bool)
    return replace(
        train,
        class_names=(*train.class_names, *new),
        labels=np.concatenate([train.labels, nothing], 1),
        verified=np.concatenate([train.verified_mask, nothing], 1),
        synonyms=(*train.synonyms, *((),) * len(new)) if train.synonyms else (),
        frequencies=(*train.frequencies, *("",) * len(new)) if train.frequencies else (),
    )


def _with_images(train: Annotations, verdicts: Verdicts) -> Annotations:
    present = {Path(os.path.abspath(path)) for path in train.paths}
    new = sorted({path for path, _ in verdicts} - present)
    if not new:
        return train
    nothing = np.zeros((len(new), len(train.class_names)), bool)
    return replace(
        train,
        image_ids=(*train.image_ids, *(path.as_posix() for path in new)),
        paths=(*train.paths, *new),
        labels=np.concatenate([train.labels, nothing]),
        verified=np.concatenate([train.verified_mask, nothing]),
    )
