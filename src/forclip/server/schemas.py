"""What goes in and out of the service, as its OpenAPI document shows it."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from forclip.search.combined import in_words
from forclip.search.labels import ClassGroup
from forclip.server import limits


class ClassOut(BaseModel):
    """One class of the labels."""

    name: str
    group: ClassGroup | None = Field(description="null where the split that the model was trained with doesn't say.")
    images: int | None = Field(default=None, description="Of the store, that show it; null until that is counted.")
    average_precision: float | None = Field(
        default=None,
        description="AP@50 of searching its name over min(50, images), in percent; of checked images.",
    )
    precision_at_10: float | None = Field(default=None, description="In percent, likewise.")
    left_out: str | None = Field(default=None, description="Why there are no numbers.")


class MeansOut(BaseModel):
    """mAP@50 in percent; null where no class of the group was measured."""

    base: float | None = None
    novel: float | None = None
    all: float | None = None


class ClassesOut(BaseModel):
    """What searching the names of classes is worth in this store."""

    state: Literal["no labels", "measuring", "measured", "failed"]
    progress: float = Field(description="Of measuring, 0..1.")
    images: int | None = Field(description="Of the store, that have labels; null until they are counted.")
    means: MeansOut
    classes: list[ClassOut] = Field(description="In the order of the labels; numbers are the last that were measured.")


class ListLabels(BaseModel):
    """What labels say of a list whose text names a class."""

    class_name: str
    group: ClassGroup | None
    images: int = Field(description="That show it, of those searched.")
    precision_at_10: float | None = Field(description="In percent, of checked images; null where none shows it.")
    average_precision: float | None = Field(description="AP@50 in percent, likewise.")
    missed: int = Field(description="Images that show it and are not among the first 50.")


NO_LABELS = ClassesOut(state="no labels", progress=0, images=None, means=MeansOut(), classes=[])


SearchText = Annotated[
    str, StringConstraints(min_length=1, max_length=limits.TEXT_CHARACTERS, pattern=r"\S", strip_whitespace=True)
]
SearchTexts = Annotated[list[SearchText], Field(max_length=limits.TEXTS)]
Key = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,19}$")]
Picks = Annotated[list[Key], Field(max_length=limits.PICKS)]
Keys = Annotated[list[Key], Field(min_length=1, max_length=limits.KEYS)]
# Letters, digits, blanks and marks, but nothing that is invisible or breaks a line.
Name = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=limits.NAME_CHARACTERS,
        pattern=r"^[^\x00-\x1f\x7f/\\\s]([^\x00-\x1f\x7f/\\]*[^\x00-\x1f\x7f/\\\s])?$",
    ),
]
# coco: a JSON file, boxes are the found places; csv: a row an image; fiftyone: a zip with the pictures; files: paths.
Format = Literal["coco", "csv", "fiftyone", "files"]
Where = Annotated[str, StringConstraints(min_length=1, max_length=limits.WHERE_CHARACTERS)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Box(_Strict):
    """A place in an image: fractions of its width and height, from the upper left corner."""

    x0: Fraction
    y0: Fraction
    x1: Fraction
    y1: Fraction

    @model_validator(mode="after")
    def _has_an_inside(self) -> "Box":
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise ValueError("x0 must be less than x1, and y0 less than y1")
        return self


def box_of(edges: Sequence[float] | None) -> Box | None:
    """xyxy, cut to the image; None where nothing is left of it."""
    inside = box_fields(edges)
    return None if inside is None else Box(**inside)


def box_fields(edges: Sequence[float] | None) -> dict[str, float] | None:
    """As box_of, for many that are checked together."""
    if edges is None:
        return None
    x0, y0, x1, y1 = (min(1.0, max(0.0, float(edge))) for edge in edges)
    return {"x0": x0, "y0": y0, "x1": x1, "y1": y1} if x0 < x1 and y0 < y1 else None


class ListRequest(_Strict):
    """Which part of a ranked list is wanted."""

    k: int = Field(50, ge=1, le=limits.K, description="How many images.")
    offset: int = Field(0, ge=0, le=limits.OFFSET, description="How many of the best to leave out: for paging.")
    where: Where | None = Field(
        None, description="SQL over the store's columns, such as: camera = 'front' and width > 1000"
    )
    min_score: float = Field(-1.0, ge=-1, le=1, description="Leave out images below this cosine.")
    exact: bool = Field(False, description="Compare every vector, however large the store.")


class JudgedRequest(ListRequest):
    """A list that may be ranked anew by what was judged in it."""

    right: Picks = Field([], description="Images judged to be right: ask for more like what answered in them.")
    wrong: Picks = Field([], description="Images judged to be wrong: they and their like are not wanted.")

    @model_validator(mode="after")
    def _no_image_is_both(self) -> "JudgedRequest":
        if set(self.right) & set(self.wrong):
            raise ValueError("an image is judged to be right and to be wrong")
        return self

    @property
    def is_refined(self) -> bool:
        """Whether anything was judged."""
        return bool(self.right or self.wrong)


class _Wanted(_Strict):
    """Texts, of which one decides what an image is worth."""

    text: SearchText | None = Field(None, description="What to look for; with any_of, one of the alternatives.")
    any_of: SearchTexts = Field([], description="Alternatives: one of them is enough.")
    all_of: SearchTexts = Field([], description="All of these must be shown.")

    @property
    def alternatives(self) -> list[str]:
        """text and any_of."""
        return [*([] if self.text is None else [self.text]), *self.any_of]

    @property
    def texts(self) -> list[str]:
        """All that are wanted."""
        return [*self.alternatives, *self.all_of]


class SearchRequest(_Wanted, JudgedRequest):
    """One text to search for, or several."""

    none_of: SearchTexts = Field([], description="Images that show one of these are left out.")
    cutoff: Literal["auto"] | None = Field(None, description="auto: end the list at the recommended cut-off.")
    only: Literal["wrong", "missed"] | None = Field(
        None,
        description="Where the text names a class of the labels: images that don't show it, or those beyond rank 50.",
    )

    @model_validator(mode="after")
    def _can_be_answered(self) -> "SearchRequest":
        if not self.texts:
            raise ValueError("nothing is wanted: give a text, any_of or all_of")
        if len(self.texts) + len(self.none_of) > limits.TEXTS:
            raise ValueError(f"at most {limits.TEXTS} texts in one search")
        if self.is_combined and (self.cutoff is not None or self.min_score > -1):
            raise ValueError("a cut-off or a lowest score is of one text, not of several")
        if self.only is not None and (self.is_combined or self.is_refined or self.cutoff is not None):
            raise ValueError("wrong and missed images are of one text's whole list, without a cut-off or images judged")
        if self.is_combined and self.is_refined:
            raise ValueError("images are right or wrong for one text, not for several")
        if self.is_refined and self.cutoff is not None:
            raise ValueError("how sure a list is can be said of a text, not of one with images judged")
        return self

    @property
    def is_combined(self) -> bool:
        """Whether it takes more than one vector."""
        return len(self.texts) > 1 or bool(self.none_of)


class ExportRequest(SearchRequest):
    """A search whose list is to be handed on."""

    format: Format = "csv"
    label: SearchText | None = Field(None, description="What the images are said to show; the texts without it.")

    @property
    def in_words(self) -> str:
        """The label, or what is looked for."""
        return self.label or in_words(self.alternatives, self.all_of, self.none_of)


class VerdictsRequest(_Strict):
    """Images judged to show what the label says, or not to."""

    label: SearchText
    right: Annotated[list[Key], Field(max_length=limits.KEYS)] = []
    wrong: Annotated[list[Key], Field(max_length=limits.KEYS)] = []

    @model_validator(mode="after")
    def _are_verdicts(self) -> "VerdictsRequest":
        if not self.right and not self.wrong:
            raise ValueError("nothing was judged")
        if set(self.right) & set(self.wrong):
            raise ValueError("an image is judged to be right and to be wrong")
        return self


class SimilarRequest(JudgedRequest):
    """An image of the store, or a place in it, to find more of."""

    key: Key
    box: Box | None = Field(None, description="Look for what is in this place; without it for the whole image.")


class UploadRequest(ListRequest):
    """A picture to find more like."""

    picture: UploadFile = Field(description="A picture of at most 20 MB.")


class LookRequest(_Wanted):
    """An image of the store to look at closely, for a text or several as in a search, or for none."""

    key: Key
    where: Where | None = Field(
        None, description="The search's filter: of several texts it helps to tell which decided."
    )

    @model_validator(mode="after")
    def _not_too_many(self) -> "LookRequest":
        if len(self.texts) > limits.TEXTS:
            raise ValueError(f"at most {limits.TEXTS} texts in one look")
        return self


class Result(BaseModel):
    """One image found."""

    key: str = Field(description="Names the image in all other calls. Opaque.")
    rank: int = Field(description="From 1, in the whole list.")
    score: float = Field(description="Cosine of the text that decided and the image's best vector.")
    probability: float | None = Field(description="That the image shows it; null where the model has no calibration.")
    box: Box | None = Field(description="The place that answered.")
    name: str = Field(description="The file's name, without its folder.")
    width: int
    height: int
    metadata: dict[str, Any] = Field(description="The store's own columns.")
    relevant: bool | None = Field(
        default=None, description="Whether labels say that it shows the class that the text names; null: not checked."
    )


class ConfidenceOut(BaseModel):
    """What is believed of a text's list."""

    cutoff: int = Field(description="How many of the best to keep: half of these are expected to be right.")
    expected_images: float = Field(description="Expected to show it, in the store or of those that the filter leaves.")
    nothing_here: bool = Field(description="Probably no image shows it.")


class SearchAnswer(BaseModel):
    """A part of a ranked list."""

    results: list[Result]
    confidence: ConfidenceOut | None = Field(
        description="null where the model has no calibration, for pictures, several texts, and judged images."
    )
    images: int = Field(description="In the store.")
    milliseconds: float
    labels: ListLabels | None = Field(
        default=None, description="null unless there are labels and the text names a class."
    )


class RegionOut(BaseModel):
    """Where one of an image's vectors comes from."""

    box: Box | None = Field(description="null for a place without an inside, such as one in a letterbox's padding.")
    score: float | None = Field(description="Cosine with the text that decided; null without a text.")


class Frame(BaseModel):
    """Where something lies in an image: as a Box, but it may reach beyond the image."""

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
        description="Cosine of the stored vector with the one that the map is of, made anew from the picture. Below 1 "
        "where vectors were merged or are stored in few bits."
    )


class LookAnswer(BaseModel):
    """Every place of an image, in no order, and of the one that answers a text the heatmap."""

    regions: list[RegionOut]
    text: str | None = Field(description="The text that decided; null where none was given, as are the next two.")
    winner: int | None = Field(description="The place that answers it, counted from 0.")
    heatmap: HeatmapOut | None


class Info(BaseModel):
    """What the service searches."""

    version: str
    images: int
    vectors: int
    store_version: int
    columns: dict[str, str] = Field(description="Names of the store's own columns, and their types.")
    has_calibration: bool


class Health(BaseModel):
    """The service answers."""

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
    """Images to put into a selection or to take out of it."""

    keys: Keys


class Problem(BaseModel):
    """Why a request was refused, in one sentence."""

    detail: str
