"""What the service says of classes and of lists where it has labels, as its OpenAPI document shows it."""

from typing import Literal

from pydantic import BaseModel, Field

from forclip.store_labels import ClassGroup


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
