"""The service's requests and answers, as its OpenAPI document shows them."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from forclip.calibration.model import WANTED_PRECISION
from forclip.evaluation.protocol import ClassGroup
from forclip.index import TOP_K
from forclip.search.request import Cutoff, SearchRequest
from forclip.server import limits

SearchText = Annotated[
    str, StringConstraints(min_length=1, max_length=limits.TEXT_CHARACTERS, pattern=r"\S", strip_whitespace=True)
]
# Identifies a search in a reviewer's verdicts: a text that the client chooses.
SearchId = Annotated[str, StringConstraints(min_length=1, max_length=limits.ADDRESS_CHARACTERS)]
SearchTexts = Annotated[tuple[SearchText, ...], Field(max_length=limits.TEXTS)]
Key = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,19}$")]
LeftOut = Annotated[list[Key], Field(max_length=limits.KEYS, description="Images to leave out.")]
Verdicts = Annotated[list[Key], Field(max_length=limits.VERDICTS)]
# Letters, digits, blanks and punctuation, but nothing invisible and no line break.
_NAME = r"^[^\x00-\x1f\x7f/\\\s]([^\x00-\x1f\x7f/\\]*[^\x00-\x1f\x7f/\\\s])?$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=limits.NAME_CHARACTERS, pattern=_NAME)]
# coco, labelstudio: JSON with the matching regions as boxes; csv: one row per image; cvat, fiftyone, yolo: a zip with
# pictures; files: paths.
Format = Literal["coco", "csv", "cvat", "fiftyone", "files", "labelstudio", "yolo"]
Where = Annotated[str, StringConstraints(min_length=1, max_length=limits.WHERE_CHARACTERS)]
Fraction = Annotated[float, Field(ge=0, le=1)]
IdsOfKeys = Callable[[Sequence[str]], Sequence[str]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def to_request(self, ids_of_keys: IdsOfKeys = lambda keys: keys, **others: Any) -> SearchRequest:
        """The request of the fields with the same names, which checks its own rules.

        ids_of_keys: converts the keys of verdicts to image ids; others: further fields of the request.
        """
        values = self.model_dump(include={field.name for field in fields(SearchRequest)})
        values |= {name: tuple(ids_of_keys(values[name])) for name in ("right", "wrong") if name in values}
        return SearchRequest(**values | others)


class Box(_Strict):
    """A region of an image: fractions of its width and height, from the upper left corner of the upright image."""

    x0: Fraction
    y0: Fraction
    x1: Fraction
    y1: Fraction

    def model_post_init(self, context: Any) -> None:
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise ValueError("x0 must be less than x1, and y0 less than y1")


def box_fields(edges: Sequence[float] | None) -> dict[str, float] | None:
    """The fields of a Box for xyxy edges, clipped to the image; None if no area remains."""
    if edges is None:
        return None
    x0, y0, x1, y1 = (min(1.0, max(0.0, float(edge))) for edge in edges)
    return {"x0": x0, "y0": y0, "x1": x1, "y1": y1} if x0 < x1 and y0 < y1 else None


class ListBody(_Strict):
    """Which part of a ranked list to return."""

    k: int = Field(TOP_K, ge=1, le=limits.K, description="How many images to return at most.")
    offset: int = Field(0, ge=0, le=limits.OFFSET, description="How many of the best images to skip, for paging.")
    where: Where | None = Field(
        None, description="SQL over the store's columns, such as: camera = 'front' and width > 1000"
    )
    min_score: float = Field(-1.0, ge=-1, le=1, description="Leave out images below this cosine.")
    exact: bool = Field(False, description="Compare every vector instead of using the approximate index.")
    collapse: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Leave out near duplicates of better results, from this similarity on, such as 0.95.",
    )

    def model_post_init(self, context: Any) -> None:
        if self.collapse is not None and self.offset + self.k > limits.COLLAPSED:
            end, most = self.offset + self.k, limits.COLLAPSED
            raise ValueError(f"with collapse, offset and k together may be at most {most}, not {end}")


class RefinableBody(ListBody):
    """A list that verdicts can refine."""

    right: Verdicts = Field([], description="Images with the verdict right: rank images like them higher.")
    wrong: Verdicts = Field([], description="Images with the verdict wrong: rank images like them lower, omit these.")


class _TextsBody(_Strict):
    """Wanted texts."""

    text: SearchText | None = Field(None, description="What to search for; with any_of, one of the alternatives.")
    any_of: SearchTexts = Field((), description="Alternatives: one of them is enough.")
    all_of: SearchTexts = Field((), description="Texts that an image must match, too.")


class SearchBody(_TextsBody, RefinableBody):
    """Search for one text or several."""

    none_of: SearchTexts = Field((), description="Images that match one of these are left out.")
    cutoff: Literal["auto"] | None = Field(None, description="auto: end the list at the recommended cut-off.")
    only: Literal["wrong", "missed"] | None = Field(
        None,
        description="Where the text names a labelled class: false positives, or images of the class beyond rank 50.",
    )

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        if len(self.to_request().wanted) + len(self.none_of) > limits.TEXTS:
            raise ValueError(f"at most {limits.TEXTS} texts in one search")

    def to_request(self, ids_of_keys: IdsOfKeys = lambda keys: keys, **others: Any) -> SearchRequest:
        cutoff = None if self.cutoff is None else Cutoff("precision", WANTED_PRECISION)
        return super().to_request(ids_of_keys, cutoff=cutoff, confidence=True, **others)


class _ExportFields(_Strict):
    """How to export a list."""

    format: Format = "csv"
    label: SearchText | None = Field(None, description="What the images show; by default the texts, or nothing.")


class ExportBody(SearchBody, _ExportFields):
    """A search whose list is to be exported."""

    min_probability: Fraction | None = Field(None, description="Leave out images with a lower probability.")
    leave_out: LeftOut = []


class VerdictsBody(_Strict):
    """Verdicts on whether images show what the label says."""

    label: SearchText
    right: Annotated[list[Key], Field(max_length=limits.KEYS)] = []
    wrong: Annotated[list[Key], Field(max_length=limits.KEYS)] = []

    def model_post_init(self, context: Any) -> None:
        if not self.right and not self.wrong:
            raise ValueError("there is no verdict")
        if set(self.right) & set(self.wrong):
            raise ValueError("an image is marked as right and as wrong")


class SimilarBody(RefinableBody):
    """Search for more images like one of the store, like a region of it, or like several."""

    key: Key | None = None
    keys: Annotated[list[Key], Field(max_length=limits.LIKED)] = Field(
        [], description="In place of key: search for what these images have in common."
    )
    box: Box | None = Field(None, description="Search for what this region of the image `key` shows.")

    @property
    def liked(self) -> list[str]:
        """The keys of the images to search with, each once."""
        return list(dict.fromkeys(self.keys if self.key is None else [self.key]))

    def model_post_init(self, context: Any) -> None:
        super().model_post_init(context)
        if (self.key is None) == (not self.keys):
            raise ValueError("give either key or keys")
        if self.box is not None and self.key is None:
            raise ValueError("a box belongs to key, not to keys")
        self.to_request(like=np.empty(0, np.float32))  # any vector, to check the rules


class SimilarExportBody(SimilarBody, _ExportFields):
    """A search for more images like one of the store, whose list is to be exported."""

    leave_out: LeftOut = []


class UploadBody(ListBody):
    """Search for more images like an uploaded picture."""

    picture: UploadFile = Field(description="A picture of at most 20 MB.")


class UploadExportBody(UploadBody, _ExportFields):
    """A search for more images like an uploaded picture, whose list is to be exported."""


class LookBody(_TextsBody):
    """A closer look at an image of the store, for texts as in a search, or for none."""

    key: Key
    where: Where | None = Field(None, description="The search's filter; of several texts it affects which decides.")

    @property
    def has_texts(self) -> bool:
        return self.text is not None or bool(self.any_of or self.all_of)

    def model_post_init(self, context: Any) -> None:
        if self.has_texts and len(self.to_request().wanted) > limits.TEXTS:
            raise ValueError(f"at most {limits.TEXTS} texts in one look")


class Result(BaseModel):
    """One image of a ranked list."""

    key: str = Field(description="Names the image in all other calls. Opaque.")
    rank: int = Field(description="From 1, in the whole list.")
    score: float = Field(description="Cosine of the text that decided and the image's best vector.")
    probability: float | None = Field(description="That the image matches; null where the model has no calibration.")
    box: Box | None = Field(description="The region that matched.")
    name: str = Field(description="The file's name, without its folder.")
    width: int = Field(description="In pixels, of the upright image.")
    height: int
    modified: int = Field(description="When the file was last changed, in milliseconds since 1970; 0: not known.")
    metadata: dict[str, Any] = Field(description="The store's own columns.")
    relevant: bool | None = Field(
        default=None, description="Whether labels say that the image shows the class of the text; null: not checked."
    )


class ConfidenceOut(BaseModel):
    """How far down a text's list to trust."""

    cutoff: int = Field(description="How many of the best to keep: half of these are expected to be right.")
    expected_images: float = Field(description="Expected matches in the store, or among what the filter leaves.")
    nothing_here: bool = Field(description="Probably no image matches.")


class ListLabels(BaseModel):
    """What labels say about a list whose text names a class."""

    class_name: str
    group: ClassGroup | None
    images: int = Field(description="How many of the searched images show the class.")
    precision_at_10: float | None = Field(description="In percent, of checked images; null where no image shows it.")
    average_precision: float | None = Field(description="AP@50 in percent, of checked images.")
    enough_data: bool = Field(description="Whether enough images show the class to trust both measures.")
    missed: int = Field(description="Images that show the class and are not among the first 50.")
    training_images: int | None = Field(
        default=None,
        description="Labelled images of the store that trained its model; null if not known.",
    )


class SearchOut(BaseModel):
    """A part of a ranked list."""

    results: list[Result]
    confidence: ConfidenceOut | None = Field(
        description="null where the model has no calibration, for pictures, several texts, and verdicts."
    )
    images: int = Field(description="In the store.")
    milliseconds: float
    labels: ListLabels | None = Field(None, description="null unless there are labels and the text names a class.")
    notes: list[str] = Field([], description="Sentences about texts that the model does not understand as a whole.")


class RegionOut(BaseModel):
    """Where one of an image's vectors comes from."""

    box: Box | None = Field(description="null for a region without area, such as one in a letterbox's padding.")
    score: float | None = Field(description="Cosine with the text that decided; null without a text.")


class Frame(BaseModel):
    """Where something lies in an upright image, as a Box that may reach beyond the image."""

    x0: float
    y0: float
    x1: float
    y1: float


class HeatmapOut(BaseModel):
    """How much of the winning vector comes from each position of a grid."""

    rows: int
    columns: int
    values: list[float] = Field(description="0..1, row by row from the upper left; the strongest is 1.")
    frame: Frame = Field(description="Where the grid's edges lie in the image.")
    agreement: float = Field(
        description="Cosine of the stored vector and the one that the map shows, computed again from the picture. "
        "Below 1 where vectors were merged or are stored in few bits."
    )


class LookOut(BaseModel):
    """Every region of an image, unordered, and the heatmap of the one that matches a text."""

    regions: list[RegionOut]
    text: str | None = Field(description="The text that decided; null without texts, as are the next two.")
    winner: int | None = Field(description="The position of the region that matches it, from 0.")
    heatmap: HeatmapOut | None


class ClassOut(BaseModel):
    """One class of the labels."""

    name: str
    group: ClassGroup | None = Field(description="null where the split that the model was trained with is unknown.")
    images: int | None = Field(default=None, description="Images of the store that show it; null until counted.")
    average_precision: float | None = Field(
        default=None, description="AP@50 of a search for its name over min(50, images), in percent, of checked images."
    )
    precision_at_10: float | None = Field(default=None, description="In percent, of checked images.")
    left_out: str | None = Field(default=None, description="Why there are no numbers.")


class MeansOut(BaseModel):
    """mAP@50 in percent; null where no class of the group was measured."""

    base: float | None = None
    novel: float | None = None
    all: float | None = None


class ClassesOut(BaseModel):
    """Search quality per class in this store."""

    state: Literal["no labels", "measuring", "measured", "failed"]
    progress: float = Field(description="Of measuring, 0..1.")
    images: int | None = Field(description="Images of the store that have labels; null until counted.")
    training_images: int | None = Field(
        default=None,
        description="Labelled images of the store that trained its model; null if not known.",
    )
    means: MeansOut
    not_enough_data: str | None = Field(
        default=None, description="A sentence to show before the means: which of them have too few classes or images."
    )
    classes: list[ClassOut] = Field(description="In the order of the labels, with the numbers measured last.")


class Info(BaseModel):
    """What the service searches."""

    version: str
    images: int
    vectors: int
    store_version: int
    columns: dict[str, str] = Field(description="Names of the store's own columns, and their types.")
    has_calibration: bool
    most_listed: int = Field(description="How many results of one list can be read.")
    most_skipped: int = Field(description="How many results one request can skip.")


class ValueCount(BaseModel):
    """A value of a column and how many images have it."""

    value: str | bool | int
    images: int


class ColumnOut(BaseModel):
    """What values a column has."""

    name: str
    own: bool = Field(description="Whether it is the user's own; every store has the others.")
    kind: Literal["choice", "number", "time", "text"]
    type: str = Field(description="The name of its Arrow type.")
    values: list[ValueCount] = Field(description="The most frequent first; none where there are too many.")
    lowest: float | datetime | None = Field(description="Of numbers, dates and times.")
    highest: float | datetime | None
    missing: int = Field(description="Images without a value.")


class ColumnsOut(BaseModel):
    """The columns that a filter may use."""

    columns: list[ColumnOut]
    images: int = Field(description="Whose rows were read.")
    complete: bool = Field(description="Whether these are all images; a very large store is read in part.")


class IndexingOut(BaseModel):
    """How far indexing is. Images are found as soon as they are stored."""

    state: Literal["none", "looking", "indexing", "done", "failed"] = Field(
        description="none: nothing is indexed here; looking: for new images; indexing: embedding them."
    )
    source: str | None = Field(default=None, description="The folder that is indexed.")
    done: int = Field(default=0, description="New images that were embedded or could not be read.")
    total: int = Field(default=0, description="New images; 0 until they are counted.")
    unreadable: int = Field(default=0, description="Images that could not be read; known at the end.")
    seconds_left: float | None = Field(default=None, description="Estimate; null if there is none.")
    message: str | None = Field(default=None, description="Why it failed.")


class Health(BaseModel):
    """The service is running."""

    status: Literal["ok"] = "ok"


class SelectionOut(BaseModel):
    """A named list of images. gone: how many of it the store no longer has."""

    name: str
    keys: list[str]
    gone: int


class SelectionSummary(BaseModel):
    """A selection's name and how many images it has."""

    name: str
    count: int


class NewSelection(_Strict):
    """A selection to create."""

    name: Name
    keys: Annotated[list[Key], Field(max_length=limits.KEYS)] = []


class KeyList(_Strict):
    """Images to add to a selection or to remove from it."""

    keys: Annotated[list[Key], Field(min_length=1, max_length=limits.KEYS)]


class ReviewedImage(BaseModel):
    """An image with a verdict."""

    key: str
    name: str


class SearchVerdicts(BaseModel):
    """The verdicts on the results of one search. gone: how many are on images that the store no longer has."""

    search: str
    right: list[ReviewedImage]
    wrong: list[ReviewedImage]
    gone: int


class SavedSearchTitle(_Strict):
    """The title of a saved search."""

    title: SearchText


class SavedSearch(SavedSearchTitle):
    """A search that can be opened again. address: what follows # in the page's address."""

    address: Annotated[str, StringConstraints(min_length=1, max_length=limits.ADDRESS_CHARACTERS)]


class ReviewOut(BaseModel):
    """A reviewer's verdicts, by search, and saved searches, the latest first."""

    name: str
    searches: list[SearchVerdicts]
    saved: list[SavedSearch]


class NewVerdicts(_Strict):
    """Verdicts to give. search: a text that identifies the search; removed: images whose verdict is taken back."""

    search: SearchId
    right: Annotated[list[Key], Field(max_length=limits.KEYS)] = []
    wrong: Annotated[list[Key], Field(max_length=limits.KEYS)] = []
    removed: Annotated[list[Key], Field(max_length=limits.KEYS)] = []


class SampleImage(BaseModel):
    """An image of the collection. width, height: in pixels, 0 if unknown."""

    key: str
    name: str
    width: int
    height: int


class Problem(BaseModel):
    """Why a request was refused, in one sentence."""

    detail: str
