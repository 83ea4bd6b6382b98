"""The description of a model in a store's header."""

from pathlib import Path

from forclip.config import HeadConfig, ModelConfig
from forclip.index.schema import Precision, StoreHeader
from forclip.models.retrieval_model import RetrievalModel, is_trained_run
from forclip.models.summary_head import SummaryHead


def stored_model(header: StoreHeader) -> tuple[ModelConfig, str | None, int | None]:
    """Return the model that filled a store: its configuration, head and number of query tokens, for `load_model`.

    Head and number are None for a trained run, which has its own.
    """
    description = dict(header.model)
    head, count = description.pop("head"), description.pop("num_query_tokens")
    config = ModelConfig(**description)
    return (config, None, None) if is_trained_run(config.name) else (config, head, count)


def store_header(
    model: RetrievalModel,
    config: ModelConfig,
    head: str | None = None,
    num_query_tokens: int | None = None,
    precision: Precision = "fp16",
    code_range: float = 1.0,
    merge: float | None = None,
) -> StoreHeader:
    """Describe a new store and the model that fills it. config, head and num_query_tokens: as `load_model` took them.

    A run's folder is stored as an absolute path, so that it is found from every working directory.
    """
    if model.class_vectors is not None and isinstance(model.head, SummaryHead):  # a trained run
        num_query_tokens = model.head.num_query_tokens
    folder = Path(config.name)
    description = {
        "name": str(folder.resolve()) if folder.is_dir() else config.name,
        "pretrained": config.pretrained,
        "image_size": config.image_size,
        "resize_mode": config.resize_mode,
        "head": head or "sum",
        "num_query_tokens": num_query_tokens or HeadConfig.num_query_tokens,
    }
    return StoreHeader(model.fingerprint, model.dim, description, precision, code_range, merge)
