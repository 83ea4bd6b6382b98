"""Requests and answers for reviewing images one after the other, as the OpenAPI document shows them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from forclip.server import limits
from forclip.server.schemas import (
    Box,
    Fraction,
    Key,
    Result,
    SearchBody,
    SearchId,
    SearchText,
    SimilarBody,
    Where,
)

Order = Literal["probability", "cutoff", "median"]
Verdict = Literal["right", "wrong"]


class QueueBody(BaseModel):
    """The list whose images are to be reviewed, for one text or for images like one or several of the store."""

    model_config = ConfigDict(extra="forbid")

    search: SearchId
    text: SearchText | None = None
    key: Key | None = Field(None, description="In place of a text: an image that the others are like.")
    keys: Annotated[list[Key], Field(max_length=limits.LIKED)] = Field([], description="In place of key: several.")
    box: Box | None = Field(None, description="A region of the image `key`.")
    where: Where | None = None
    k: int | None = Field(None, ge=1, le=limits.K, description="The cut-off as a number of the best images.")
    min_score: float = Field(-1.0, ge=-1, le=1, description="The cut-off as a cosine.")
    min_probability: Fraction | None = Field(None, description="The cut-off as a probability.")
    length: int = Field(200, ge=1, le=limits.QUEUED, description="How many images to review at most.")
    again: bool = Field(False, description="Make a new queue where there is one for the same list.")

    def model_post_init(self, context: Any) -> None:
        if (self.text is not None) + (self.key is not None) + bool(self.keys) != 1:
            raise ValueError("give either a text, a key or keys")
        if self.box is not None and self.key is None:
            raise ValueError("a box needs the key of its image")
        if sum((self.k is not None, self.min_score > -1, self.min_probability is not None)) > 1:
            raise ValueError("give one cut-off: k, min_score or min_probability")

    def list_body(self, most: int) -> SearchBody | SimilarBody:
        """The search for the list. most: images that a list may have, with those that the others are like."""
        most -= len(self.keys) + (self.key is not None)
        part: dict[str, Any] = {"where": self.where, "k": min(self.k or limits.K, most), "min_score": self.min_score}
        if self.text is not None:
            return SearchBody(text=self.text, **part)
        return SimilarBody(key=self.key, keys=self.keys, box=self.box, **part)


class QueuePosition(BaseModel):
    """Where a reviewer is in the queue for a search. position: how many of its images are reviewed."""

    model_config = ConfigDict(extra="forbid")

    search: SearchId
    queue: str | None = Field(
        None, max_length=100, description="The queue's id: another queue for the search is refused."
    )
    position: Annotated[int, Field(strict=True, ge=0, le=limits.QUEUED)]


class QueueAnswer(QueuePosition):
    """What a reviewer says about the next image of a queue; `skip` leaves its verdict as it is."""

    answer: Literal["right", "wrong", "skip"]


class PrecisionOut(BaseModel):
    """The share of right images above the cut-off, 0..1, estimated from the reviewed ones."""

    images: int = Field(description="Above the cut-off, when the queue was made.")
    drawn: int = Field(description="Images with a verdict that count as drawn at random.")
    precision: float | None = Field(description="null where no image was drawn yet.")
    low: float = Field(description="Lower end of the 95 % interval.")
    high: float = Field(description="Upper end of the 95 % interval.")
    enough_data: bool = Field(description="Whether the interval is at most 30 points wide.")


class QueueState(BaseModel):
    """How far a queue is reviewed."""

    search: str
    position: int = Field(description="How many of its images are reviewed, skipped ones included.")
    length: int
    right: int = Field(description="Of the reviewed images.")
    wrong: int
    precision: PrecisionOut


class QueueEntry(BaseModel):
    """An image of a queue."""

    image: Result | None = Field(description="null if the image was deleted since: skip it.")
    drawn: bool = Field(description="Whether it was drawn at random; else it is among the least certain.")
    verdict: Verdict | None = Field(description="The reviewer's, as it is now.")


class QueueOut(QueueState):
    """A queue of images to review."""

    queue: str = Field(description="Its id. A later queue for the same search has another one.")
    order: Order = Field(
        description="What the least certain images are nearest to: a probability of one half, or in lists without "
        "probabilities the score at the cut-off, or the median score where there is no cut-off."
    )
    entries: list[QueueEntry]
