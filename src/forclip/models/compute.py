"""The number format that image towers and heads compute in: single or half precision, by the device.

Half precision is PyTorch's autocast: matrix products and convolutions are in bf16 or fp16, weights stay float32.
Normalisations, attention weights of regions, and scores are float32 in any case, and so are texts.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from forclip.config import Compute, ComputeChoice
from forclip.models.error_text import first_line

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_CAPABILITY, _FP16_CAPABILITY = (8, 0), (7, 0)  # of the first NVIDIA cards that multiply in this format


def resolve_compute(choice: ComputeChoice, device: str | torch.device) -> Compute:
    """Return the number format of a choice on a device.

    `auto` is float32 on a CPU; on a GPU bf16, or fp16 on cards from before it (T4, V100), or float32 on those before
    tensor cores. A GPU that this machine lacks, as that of a cluster's worker, counts as one with bf16. Raises
    ValueError for a device that there is not.
    """
    try:
        if choice != "auto":
            return choice
        if torch.device(device).type != "cuda":
            return "float32"
        if not torch.cuda.is_available():
            return "bf16"
        capability = torch.cuda.get_device_capability(device)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"device {str(device)!r} is unknown or not available: {first_line(error)}") from None
    return "bf16" if capability >= _BF16_CAPABILITY else "fp16" if capability >= _FP16_CAPABILITY else "float32"


def compute_of(backbone: object) -> Compute:
    """Return the number format of a backbone. One that was plugged in need not have any: it counts as float32."""
    compute: Compute = getattr(backbone, "compute", "float32")
    return compute


def autocast(device: torch.device, compute: Compute) -> AbstractContextManager[object]:
    """Return a context in which modules compute in a number format."""
    return nullcontext() if compute == "float32" else torch.autocast(device.type, DTYPES[compute])


def single_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context on a tensor's device in which nothing is cast to half precision."""
    return torch.autocast(tensor.device.type, enabled=False)


def widen(tensor: Tensor) -> Tensor:
    """Return a tensor of half precision as float32, and others unchanged."""
    return tensor.float() if tensor.dtype.itemsize < torch.float32.itemsize else tensor
