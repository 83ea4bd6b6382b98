"""How the images of a store are embedded: by the options of a job, or as the store has it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forclip.bucket_path import StorePath
from forclip.config import Compute, ModelConfig
from forclip.data.images.tiles import DEFAULT_OVERLAP, describe_tiles, parse_tiles
from forclip.embedding.choose_tiles import choose_tiles
from forclip.embedding.merge import check_max_vectors, check_merge
from forclip.embedding.worker import EmbedderSpec
from forclip.image_size import describe_image_size
from forclip.index.create_store import require_model
from forclip.index.image_index import Index
from forclip.index.roots import Roots, to_json
from forclip.index.schema import Precision
from forclip.location import Location
from forclip.models.retrieval_model import RetrievalModel, is_trained_run, load_model, load_store_model, store_header

_CODE_HEADROOM = 1.25  # of int8's range over the largest value of the first slice


@dataclass(frozen=True)
class StoreOptions:
    """How images are embedded and stored, as `index_images` takes it. None: as the store has it, or the default.

    compute: of the workers, the resolved choice.

    Raises ValueError for values that there are not."""

    to: StorePath
    model: ModelConfig | None
    head: str | None
    num_query_tokens: int | None
    precision: Precision | None
    merge: float | None
    max_vectors: int | None
    tiles: str | None
    tile_overlap: float | None
    compute: Compute = "float32"
    compiled: bool = False
    batch_size: int | None = None

    def __post_init__(self) -> None:
        check_merge(self.merge)
        check_max_vectors(self.max_vectors)
        _requested_tiles(self.model, self.tiles, self.tile_overlap)

    def load(self, index: Index | None, device: str, loaded: RetrievalModel | None = None) -> RetrievalModel:
        """Load the model of a store, or of the options. Raises ValueError for options that are not the store's.

        loaded: the store's model, if it is loaded already.
        """
        model, head, num_query_tokens = self.model, self.head, self.num_query_tokens
        tiles, overlap = _requested_tiles(model, self.tiles, self.tile_overlap)
        _check_options(model, head if index is None else head or index.store.header.model["head"], num_query_tokens)
        if index is None:
            config = replace(model or ModelConfig(), tiles="none", compute=self.compute, compile=self.compiled)
            loaded = load_model(config, device, head, num_query_tokens)
            return loaded if tiles in (None, "auto") else loaded.with_tiles(parse_tiles(tiles, overlap))
        store = index.store
        if loaded is None or model is not None:
            loaded = load_store_model(
                store.model_folder,
                store.header,
                device,
                model,
                head,
                num_query_tokens,
                compute=self.compute,
                compiled=self.compiled,
            )
        if tiles not in (None, "auto") and (requested := parse_tiles(tiles, overlap)) != loaded.tiles:
            both = describe_tiles(loaded.tiles), describe_tiles(requested)
            raise ValueError(f"{self.to}: was created with tiles {both[0]}, not {both[1]}")
        require_model(store, loaded.fingerprint)
        self._check(index)
        return loaded

    def _check(self, index: Index) -> None:
        """Raise ValueError if a store was created with other options."""
        for name in ("precision", "merge", "max_vectors"):
            wanted, actual = getattr(self, name), getattr(index.store.header, name)
            if wanted not in (None, actual):
                raise ValueError(f"{self.to}: was created with {name} {actual}, not {wanted}")

    def spec(self, index: Index | None, model: RetrievalModel) -> EmbedderSpec:
        """How workers load the model that this process has loaded."""
        merge, max_vectors = self.merging(index)
        config = self.model
        if config is not None and is_trained_run(config.name):  # workers may have another working folder
            config = replace(config, name=os.path.abspath(config.name))
        return EmbedderSpec(
            model=config,
            head=self.head,
            num_query_tokens=self.num_query_tokens,
            tiles=model.tiles,
            merge=merge,
            max_vectors=max_vectors,
            compute=self.compute,
            compiled=self.compiled,
            batch_size=self.batch_size,
            precision=(self.precision or "fp16") if index is None else index.store.header.precision,
            fingerprint=model.fingerprint,
            header=None if index is None else index.store.header,
            model_folder=None if index is None else index.store.model_folder.absolute(),
        )

    def with_auto_tiles(self, model: RetrievalModel, paths: Sequence[Location]) -> RetrievalModel:
        """Choose tiles for a new store by the size of pictures, if that was asked for and the model has none."""
        tiles, overlap = _requested_tiles(self.model, self.tiles, self.tile_overlap)
        if tiles != "auto" or (self.model is not None and is_trained_run(self.model.name)):
            return model
        return model.with_tiles(choose_tiles(model.backbone, paths, overlap))

    def merging(self, index: Index | None) -> tuple[float | None, int | None]:
        """Return `merge` and `max_vectors` of the store, or of a new one."""
        return (
            (self.merge, self.max_vectors)
            if index is None
            else (index.store.header.merge, index.store.header.max_vectors)
        )

    def create(self, model: RetrievalModel, largest: float, roots: Roots) -> Index:
        """Create the store. largest: value of its first vectors."""
        chosen = self.model or ModelConfig(), self.head, self.num_query_tokens
        code_range = largest * _CODE_HEADROOM if self.precision == "int8" else 1.0
        header = store_header(model, *chosen, self.precision or "fp16", code_range, self.merge, self.max_vectors)
        run = Path(chosen[0].name) if is_trained_run(chosen[0].name) else None
        index = Index.create(self.to, replace(header, roots=to_json(roots, self.to)), run)
        self._check(index)  # another job may have created it
        if self.compute not in index.store.header.compute:
            others = ", ".join(index.store.header.compute)
            raise ValueError(f"{self.to}: another job has just created it in {others}, not {self.compute}; run again")
        return index


def _requested_tiles(model: ModelConfig | None, tiles: str | None, overlap: float | None) -> tuple[str | None, float]:
    """Return the requested tiles and their overlap; None stands for the tiles of the model or the store.

    Raises ValueError for tiles that there are not, and for an overlap without tiles.
    """
    if tiles is None and model is not None and model.tiles != "none":
        tiles, overlap = model.tiles, model.tile_overlap if overlap is None else overlap
    if overlap is not None and tiles in (None, "none"):
        raise ValueError(f"the overlap {overlap:g} needs tiles, such as 3x3")
    overlap = DEFAULT_OVERLAP if overlap is None else overlap
    if tiles not in (None, "auto"):
        parse_tiles(tiles, overlap)
    return tiles, overlap


def _check_options(model: ModelConfig | None, head: str | None, num_query_tokens: int | None) -> None:
    """Raise ValueError for options that would be ignored."""
    if model is not None and is_trained_run(model.name):
        size = None if model.image_size is None else describe_image_size(model.image_size)
        for option, value in (("pretrained", model.pretrained), ("image_size", size)):
            if value is not None:
                raise ValueError(f"{model.name}: is a trained run with its own {option}, not {value}")
    elif num_query_tokens is not None and head not in (None, "sum"):
        raise ValueError(f"num_query_tokens {num_query_tokens} applies to the head sum, not to {head}")
