"""Find the images that contain an object, in your own large image set, by free text."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forclip.config import DataConfig as DataConfig
    from forclip.config import EvalConfig as EvalConfig
    from forclip.config import HeadConfig as HeadConfig
    from forclip.config import ModelConfig as ModelConfig
    from forclip.config import RunConfig as RunConfig
    from forclip.config import SourceConfig as SourceConfig
    from forclip.config import TrainConfig as TrainConfig
    from forclip.config import load_config as load_config
    from forclip.data.images.tiles import Tiles as Tiles
    from forclip.embedding.embed import embed_images as embed_images
    from forclip.embedding.ingest import index_images as index_images
    from forclip.experiments.evaluate import evaluate as evaluate
    from forclip.index.image_index import Index as Index
    from forclip.index.schema import StoreHeader as StoreHeader
    from forclip.index.store import ImageFile as ImageFile
    from forclip.models.retrieval_model import load_model as load_model
    from forclip.search.export import export as export
    from forclip.search.request import SearchRequest as SearchRequest
    from forclip.search.result_list import ResultList as ResultList
    from forclip.search.searcher import Searcher as Searcher
    from forclip.search.searcher import open_searcher as open_searcher
    from forclip.search.selection import select_ids as select_ids
    from forclip.search.selection import select_search as select_search
    from forclip.toyworld.dataset import write_toyworld as write_toyworld
    from forclip.training.finetune import finetune as finetune
    from forclip.training.runs import train as train
    from forclip.types import Annotations as Annotations
    from forclip.types import ImageEmbeddings as ImageEmbeddings
    from forclip.types import SearchResult as SearchResult

__version__ = "0.4.0"
_NAMES = {
    "config": (
        "DataConfig",
        "EvalConfig",
        "HeadConfig",
        "ModelConfig",
        "RunConfig",
        "SourceConfig",
        "TrainConfig",
        "load_config",
    ),
    "data.images.tiles": ("Tiles",),
    "embedding.embed": ("embed_images",),
    "embedding.ingest": ("index_images",),
    "experiments.evaluate": ("evaluate",),
    "index.image_index": ("Index",),
    "index.schema": ("StoreHeader",),
    "index.store": ("ImageFile",),
    "models.retrieval_model": ("load_model",),
    "search.export": ("export",),
    "search.request": ("SearchRequest",),
    "search.result_list": ("ResultList",),
    "search.searcher": ("Searcher", "open_searcher"),
    "search.selection": ("select_ids", "select_search"),
    "toyworld.dataset": ("write_toyworld",),
    "training.finetune": ("finetune",),
    "training.runs": ("train",),
    "types": ("Annotations", "ImageEmbeddings", "SearchResult"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `forclip --help` does not load PyTorch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'forclip' has no attribute {name!r}")
    return getattr(import_module(f"forclip.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
