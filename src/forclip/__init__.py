"""Find the images that contain an object, in your own large image set, by free text."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forclip.config import HeadConfig, ModelConfig, TrainConfig
    from forclip.embedding.embed import embed_images
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
    "SearchResult",
    "Searcher",
    "StoreHeader",
    "TrainConfig",
    "embed_images",
    "finetune",
    "load_model",
    "open_searcher",
]
_HOME = {
    "Annotations": "types",
    "HeadConfig": "config",
    "ImageEmbeddings": "types",
    "ImageFile": "index.store",
    "Index": "index.image_index",
    "ModelConfig": "config",
    "SearchResult": "types",
    "Searcher": "search.searcher",
    "StoreHeader": "index.schema",
    "TrainConfig": "config",
    "embed_images": "embedding.embed",
    "finetune": "training.finetune",
    "load_model": "models.retrieval_model",
    "open_searcher": "search.searcher",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: `forclip --help` should not wait for PyTorch."""
    if name not in _HOME:
        raise AttributeError(f"module 'forclip' has no attribute {name!r}")
    return getattr(import_module(f"forclip.{_HOME[name]}"), name)
