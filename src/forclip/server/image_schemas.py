"""Requests and answers about stored images: details, near duplicates, and the map."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from forclip.index.duplicates import SIMILARITY
from forclip.server import limits
from forclip.server.schemas import Key, SearchBody, SimilarBody


class DetailsOut(BaseModel):
    """Where an image's file is, and what its metadata say."""

    path: str = Field(description="The file, or the location in a bucket, shard or video.")
    taken: str | None = Field(description="ISO 8601, by the camera's clock (EXIF); null if the file does not say.")
    camera: str | None = Field(description="Make and model (EXIF).")
    problem: str | None = Field(description="Why the file can't be read, in one sentence; null if it can.")


class DuplicatesBody(BaseModel):
    """Images to group, in the order of a list."""

    model_config = ConfigDict(extra="forbid")

    keys: Annotated[list[Key], Field(min_length=1, max_length=limits.GROUPED)] = Field(
        description="Images to group, the best first."
    )
    firsts: Annotated[list[Key], Field(max_length=limits.K)] = Field(
        [], description="The first images of the groups that were found among better results."
    )
    similarity: float = Field(SIMILARITY, gt=0, le=1, description="Lowest similarity with the first image of a group.")


class DuplicatesOut(BaseModel):
    """Groups of near duplicates."""

    firsts: list[str] = Field(description="For each of the keys the first image of its group, which may be itself.")


MapState = Literal["computing", "ready", "failed"]
MapMethod = Literal["pca", "tsne"]


class MapOut(BaseModel):
    """A map of the collection: images that are alike lie near each other. The lists have one entry for each point."""

    state: MapState = Field(
        description="computing: ask again later; what is there is an older or simpler map, or no point yet."
    )
    method: MapMethod = Field(description="pca: principal components; tsne: t-SNE, which shows groups better.")
    images: int = Field(description="In the store. More than there are points: these are a sample.")
    keys: list[str]
    names: list[str] = Field(description="The files' names, without their folders.")
    x: list[float] = Field(description="0..1, from the left.")
    y: list[float] = Field(description="0..1, from the top.")


class MapScoresBody(BaseModel):
    """The search whose scores are wanted."""

    model_config = ConfigDict(extra="forbid")

    search: SearchBody | None = Field(None, description="As for /api/search; k, offset and cutoff do not count.")
    similar: SimilarBody | None = Field(None, description="As for /api/similar; k and offset do not count.")

    @property
    def wanted(self) -> SearchBody | SimilarBody:
        """The one that was given."""
        given = self.search or self.similar
        assert given is not None
        return given

    def model_post_init(self, context: Any) -> None:
        if (self.search is None) == (self.similar is None):
            raise ValueError("give either search or similar")


class MapScoresOut(BaseModel):
    """How well the images on the map match a search."""

    scores: dict[str, float] = Field(
        description="By key, the scores that order the list; only of images in the first part of the list."
    )
    listed: int = Field(description="How long this part of the list is.")
    complete: bool = Field(description="Whether it is the whole list.")
