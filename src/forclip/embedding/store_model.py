"""What a store remembers of the model that fills it, and that model again."""

from pathlib import Path

from forclip.config import ModelConfig
from forclip.index.schema import Precision, StoreHeader
from forclip.models.retrieval_model import RetrievalModel


def stored_model(header: StoreHeader) -> tuple[ModelConfig, str, int]:
    """The model that filled a store, its head and number of query tokens."""
    described = dict(header.model)
    head, count = described.pop("head"), described.pop("num_query_tokens")
    return ModelConfig(**described), head, count


def store_header(
    model: RetrievalModel,
    config: ModelConfig,
    head: str,
    num_query_tokens: int,
    precision: Precision = "fp16",
    code_range: float = 1.0,
    merge: float | None = None,
) -> StoreHeader:
    """What a new store remembers of the model that fills it."""
    # A run's folder must be found again from wherever the search is called.
    folder = Path(config.name)
    described = {
        "name": str(folder.resolve()) if folder.is_dir() else config.name,
        "pretrained": config.pretrained,
        "image_size": config.image_size,
        "resize_mode": config.resize_mode,
        "head": head,
        "num_query_tokens": num_query_tokens,
    }
    return StoreHeader(model.fingerprint, model.dim, described, precision, code_range, merge)
