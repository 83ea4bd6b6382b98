"""Create a store, or open the one in a folder, and tell whether another model wrote it."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import lance

from forclip.bucket_path import BucketPath, StorePath, store_path
from forclip.index.schema import StoreHeader
from forclip.index.store import MODEL_FOLDER, Store
from forclip.index.table import LOCK, TABLE, is_conflict, reword_errors, writers_lock

# The last one marks a whole run.
_RUN_FILES = ("model.safetensors", "calibration.json", "split.json", "training_images.txt", "config.json")


def create_store(folder: str | os.PathLike[str] | BucketPath, header: StoreHeader, run: Path | None = None) -> Store:
    """Create a store, or open the one in the folder.

    folder: a local folder, or a URL such as s3://bucket/store; run: folder of the trained run whose files the store
    keeps. Several machines may create one store; it gets the roots of all of them. Raises ValueError if another model
    wrote an existing store, or the folder holds something else.
    """
    folder = store_path(folder)
    if not has_table(folder):
        if has_store(folder) and not has_table(folder):  # another job may have just created it
            raise ValueError(f"{folder}: exists and is no forclip store")
        if isinstance(folder, Path):
            folder.mkdir(parents=True, exist_ok=True)
            with writers_lock(folder):
                if not has_table(folder):  # no other job was faster
                    _create_table(folder, header, run)
        else:
            with reword_errors(f"{folder}: can't be created", place=folder):
                try:
                    _create_table(folder, header, run)
                except (OSError, ValueError, RuntimeError) as error:
                    if "already exists" not in str(error) and not is_conflict(error):
                        raise  # otherwise another job was faster
    store = Store(folder)
    require_model(store, header.fingerprint)
    roots = store.header.roots
    for name, root in header.roots.items():
        if name in roots and roots[name]["path"] != root["path"]:
            raise ValueError(f"{folder}: its root {name!r} is {roots[name]['path']}, not {root['path']}")
    if header.roots.keys() - roots.keys():
        store.write_header(replace(store.header, roots={**header.roots, **roots}))
    return store


def _create_table(folder: StorePath, header: StoreHeader, run: Path | None) -> None:
    if run is not None:
        copy_run(run, folder)
    lance.write_dataset(header.schema().empty_table(), str(folder / TABLE), mode="create")


def has_table(folder: StorePath) -> bool:
    """Whether a store was created in the folder."""
    return (folder / TABLE / "_versions").exists()


def has_store(folder: StorePath) -> bool:
    """Whether a store, or anything else that is no store, is there.

    It is not so for a folder that is missing or empty, or that holds a store whose creation was killed or goes on.
    """
    unfinished = {TABLE, LOCK, MODEL_FOLDER}
    if not folder.is_dir():
        return folder.exists()
    return has_table(folder) or any(file.name not in unfinished for file in folder.iterdir())


def copy_run(run: Path, store: StorePath) -> None:
    """Copy what searching needs of a trained run into a store: head, class vectors, calibration and class split."""
    for name in _RUN_FILES:
        if (run / name).exists():
            target = store / MODEL_FOLDER / name
            if isinstance(target, BucketPath):
                target.upload(run / name)
            else:
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(run / name, target)


def require_model(store: Store, fingerprint: str) -> None:
    """Raise ValueError if another model wrote the store: vectors of two models cannot be compared."""
    if store.header.fingerprint != fingerprint:
        raise ValueError(written_by_another(str(store.folder), store.header))


def written_by_another(name: str, header: StoreHeader) -> str:
    """Say that another model wrote a store. name: of the store."""
    return f"{name}: was written by another model ({header.model.get('name')!r}, or other weights of that name)"
