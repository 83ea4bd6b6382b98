"""Keep a model's weights in memory once for several processes, as files that all of them map."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from forclip.models.retrieval_model import RetrievalModel


def write_weights(model: RetrievalModel, folder: Path) -> None:
    """Write the backbone's weights to a folder, one file for each type of number. Those on a GPU are left out."""
    for dtype, tensors in _by_dtype(model).items():
        with _file(folder, dtype).open("wb") as file:
            for tensor in tensors:
                file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def use_weights(model: RetrievalModel, folder: Path) -> None:
    """Replace the backbone's weights by equal ones that are mapped from the files of `write_weights`.

    Raises ValueError for files of a model with other weights.
    """
    for dtype, tensors in _by_dtype(model).items():
        count, file = sum(tensor.numel() for tensor in tensors), _file(folder, dtype)
        if not file.exists() or file.stat().st_size != count * dtype.itemsize:
            raise ValueError(f"{file}: holds the weights of another model")
        # Private: a change would be this process's own. Until then all processes share the pages.
        mapped, start = torch.from_file(str(file), shared=False, size=count, dtype=dtype), 0
        for tensor in tensors:
            tensor.data = mapped[start : start + tensor.numel()].view(tensor.shape)
            start += tensor.numel()


def _by_dtype(model: RetrievalModel) -> dict[torch.dtype, list[Tensor]]:
    tensors: dict[torch.dtype, list[Tensor]] = defaultdict(list)
    for tensor in _tensors(model):
        if tensor.device.type == "cpu" and tensor.numel():
            tensors[tensor.dtype].append(tensor)
    return tensors


def _tensors(model: RetrievalModel) -> Iterator[Tensor]:
    """The parameters and buffers of the backbone, each once; none of a backbone that is not made of PyTorch modules."""
    module = getattr(model.backbone, "model", None)
    if isinstance(module, nn.Module):
        yield from module.parameters()
        yield from module.buffers()


def _file(folder: Path, dtype: torch.dtype) -> Path:
    return folder / f"weights-{str(dtype).removeprefix('torch.')}.bin"
