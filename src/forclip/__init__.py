"""Find the images that contain an object, in your own large image set, by free text."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forclip.config import HeadConfig, ModelConfig, RunConfig, TrainConfig, load_config
    from forclip.embedding.embed import embed_images
    from forclip.experiments.api import evaluate, train
    from forclip.index.image_index import Index
    from forclip.index.schema import StoreHeader
    from forclip.index.store import ImageFile
    from forclip.models.retrieval_model import load_model
    from forclip.search.searcher import Searcher, open_searcher
    from forclip.training.finetune import finetune
    from forclip.types import Annotations, ImageEmbeddings, SearchResult

__version__ = "0.2.0"
__all__ = [
    "Annotations",
    "HeadConfig",
    "ImageEmbeddings",
    "ImageFile",
    "Index",
    "ModelConfig",
    "RunConfig",
    "SearchResult",
    "Searcher",
    "StoreHeader",
    "TrainConfig",
    "embed_images",
    "evaluate",
    "finetune",
    "load_config",
    "load_model",
    "open_searcher",
    "train",
]
_MODULES = {
    "Annotations": "types",
    "HeadConfig": "config",
    "ImageEmbeddings": "types",
    "ImageFile": "index.store",
    "Index": "index.image_index",
    "ModelConfig": "config",
    "RunConfig": "config",
    "SearchResult": "types",
    "Searcher": "search.searcher",
    "StoreHeader": "index.schema",
    "TrainConfig": "config",
    "embed_images": "embedding.embed",
    "evaluate": "experiments.api",
    "finetune": "training.finetune",
    "load_config": "config",
    "load_model": "models.retrieval_model",
    "open_searcher": "search.searcher",
    "train": "experiments.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `forclip --help` does not load PyTorch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'forclip' has no attribute {name!r}")
    return getattr(import_module(f"forclip.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
