"""Make a run's configuration from the labels of a labelling tool alone."""

from pathlib import Path

from forclip.config import DataConfig, GalleryRule, ModelConfig, RunConfig, SourceConfig
from forclip.data.formats.recognise import label_files_in, labelled_folder_format
from forclip.data.sources import with_all_splits
from forclip.location import as_location

_GALLERY = 0.2  # share of the images that is kept for `forclip eval`


def config_of_labels(
    labels: str | Path, images: str | Path | None = None, model: str | None = None, device: str = "cpu"
) -> RunConfig:
    """Return a configuration that trains on four fifths of the labelled images and keeps the others for the gallery.

    labels: a label file or an exported folder in any format that SourceConfig reads. images: the image folder; None
    means the export's own. model: as in ModelConfig, None for its default. All classes are base classes.

    Raises ValueError for a folder without labels, or with several label files, and for a zip file.
    """
    place = Path(labels) if as_location(labels) != Path(labels) else Path(labels).absolute()
    if place.suffix.lower() == ".zip":
        raise ValueError(f"{place}: is a zip file; unpack it and give its folder")
    if place.is_dir() and labelled_folder_format(place) is None:
        place = _only_label_file(place)
    folder = _exported_images(place) if images is None else Path(images).absolute()
    source = with_all_splits(SourceConfig(place, folder))
    data = DataConfig(source, gallery=GalleryRule(fraction=_GALLERY))
    return RunConfig(data, ModelConfig() if model is None else ModelConfig(name=model), device=device)


def _only_label_file(folder: Path) -> Path:
    files = label_files_in(folder)
    if len(files) != 1:
        shown = ", ".join(str(file.relative_to(folder)) for file in files[:3])
        problem = f"has several label files: {shown}" if files else "has no labels in a known format"
        raise ValueError(f"{folder}: {problem}; give the label file itself")
    return files[0]


def _exported_images(file: Path) -> Path | None:
    """The image folder of an export that keeps labels and pictures apart, such as CVAT's COCO: `images/default`."""
    folder = file.parent.parent / "images"
    if not file.is_file() or file.parent.name.lower() != "annotations" or not folder.is_dir():
        return None
    content = list(folder.iterdir())
    return content[0] if len(content) == 1 and content[0].is_dir() else folder
