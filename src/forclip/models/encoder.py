"""Run an image tower and a head on a device: number format, copies, and as many images at once as fit into memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from forclip.models.backbone import Backbone
from forclip.models.baselines import Head
from forclip.models.compute import autocast, compute_of
from forclip.models.cpu_parts import CpuParts
from forclip.progress import notify

CPU_BATCH = 64
_GPU_BATCH = 256  # larger ones are hardly faster
_MEMORY_SHARE = 0.8  # of a GPU's free memory that a batch may take
_COPIES = 3  # of a batch's pixels: those in use, those copied ahead, and those being copied
_PROBED = (2, 6)  # images, whose difference in memory is that of four

_Parts = TypeVar("_Parts")


@dataclass(frozen=True)
class OnTheWay:
    """Tensors that a GPU may still compute, or copy to the CPU."""

    tensors: tuple[Tensor, ...]
    ready: torch.cuda.Event | None

    def wait(self) -> tuple[Tensor, ...]:
        """Wait for the GPU, and return the tensors on the CPU."""
        if self.ready is None:
            return self.tensors
        self.ready.synchronize()
        return tuple(tensor.clone() for tensor in self.tensors)  # pinned memory is scarce, and used again


class Encoder:
    """Encodes and embeds images with a backbone and heads, on the backbone's device and in its number format.

    Indexing, the token cache, evaluation and the service all run images through it. batch_size: the most images at
    once. If the device's memory does not suffice for them, it is halved and they are taken in parts. On a CPU each core
    takes a part, with models that several threads may run.
    """

    def __init__(self, backbone: Backbone, batch_size: int | None = None) -> None:
        """batch_size: None for 64 on a CPU, and up to 256 on a GPU, as many as `fit` finds."""
        self.backbone, self.device, self.compute = backbone, backbone.device, compute_of(backbone)
        self._is_chosen = batch_size is not None
        self.batch_size = batch_size or (_GPU_BATCH if self.device.type == "cuda" else CPU_BATCH)
        self._cpu_parts: CpuParts | None = None
        if self.device.type == "cpu" and getattr(backbone, "is_reentrant", False):
            self._cpu_parts = CpuParts(backbone, batch_size)
            self.batch_size = max(CPU_BATCH, self._cpu_parts.size * torch.get_num_threads())

    def fit(self, head: Head | None, pixels: Tensor) -> None:
        """Choose the batch size by a GPU's memory, once, unless it was given. pixels: [3, H, W], of any image."""
        if self.device.type == "cuda" and not self._is_chosen:
            self.batch_size = largest_batch(self._memory_of(head, pixels), self._free_memory(), self.batch_size)
        self._is_chosen = True

    def _memory_of(self, head: Head | None, pixels: Tensor) -> Callable[[int], int]:
        """Return a function that measures the bytes that the device needs for so many images."""

        @torch.inference_mode()
        def measure(count: int) -> int:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self._run(head, pixels.expand(count, *pixels.shape), head is not None)
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_allocated(self.device) - before + _COPIES * count * 4 * pixels.numel()

        return measure

    def _free_memory(self) -> int:
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(torch.cuda.mem_get_info(self.device)[0]) + kept

    def to_device(self, pixels: Tensor) -> Tensor:
        """Copy images to the device, at once from pinned memory. [B, 3, H, W]."""
        if self.device.type != "cuda":
            return pixels.to(self.device)
        # The layout that tensor cores convolve in.
        return pixels.to(self.device, non_blocking=True, memory_format=torch.channels_last)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> OnTheWay:
        """Encode images on any device: [B, 3, H, W] -> tokens [B, T, W], float16."""
        return self._fetch(self._in_parts(lambda part: (self._run(None, part, False)[0].half(),), pixels))

    @torch.inference_mode()
    def embed(self, head: Head, pixels: Tensor, with_weights: bool = False) -> OnTheWay:
        """Embed images on any device, [B, 3, H, W]. Their tokens stay on the model's device.

        Returns unit vectors [B, N, D] and, with_weights, the weight of each position [B, N, P], both float32.
        """
        return self._fetch(self._in_parts(lambda part: self._run(head, part, with_weights), pixels, True))

    @torch.inference_mode()
    def embed_tokens(self, head: Head, tokens: Tensor, with_weights: bool = False) -> OnTheWay:
        """As `embed`, from tokens [B, T, W] of any float type, on any device."""
        return self._fetch(self._in_parts(lambda part: self._apply(head, part, with_weights), tokens))

    def _run(self, head: Head | None, pixels: Tensor, with_weights: bool) -> tuple[Tensor, ...]:
        tokens = self.backbone.encode_tokens(self.to_device(pixels))
        return (tokens,) if head is None else self._apply(head, tokens, with_weights)

    def _apply(self, head: Head, tokens: Tensor, with_weights: bool) -> tuple[Tensor, ...]:
        """Apply a head on the device. Where fp16 overflows in it, it is applied again in float32."""
        tokens = tokens.to(self.device, torch.float32)

        def apply() -> tuple[Tensor, ...]:
            if not with_weights:
                return (head(tokens),)
            both = getattr(head, "embed", None)
            return (head(tokens), head.position_weights(tokens)) if both is None else tuple(both(tokens))

        with autocast(self.device, self.compute):
            results = apply()
        if self.compute == "fp16" and not bool(results[0].isfinite().all()):
            results = apply()
        return tuple(result.float() for result in results)

    def _in_parts(self, run: Callable[[Tensor], _Parts], inputs: Tensor, may_measure: bool = False) -> list[_Parts]:
        """Run on all inputs [B, ...], in parts that fit into the device's memory. may_measure: as in `CpuParts.run`.

        Raises ValueError if one does not fit.
        """
        if self._cpu_parts is not None:
            return self._cpu_parts.run(run, inputs, may_measure)
        results: list[_Parts] = []
        done = 0
        while done < len(inputs):
            part = inputs[done : done + self.batch_size]
            try:
                results.append(run(part))
                done += len(part)
                continue
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    message = f"{self.backbone.name}: the memory of {self.device} does not suffice for one image"
                    raise ValueError(message) from None
            # Here, not above: the exception keeps the tensors of the failed part alive.
            self.batch_size = len(part) // 2
            notify(f"{self.device} has no memory for {len(part)} images at once, so {self.batch_size} are embedded")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return results

    def _fetch(self, parts: Sequence[tuple[Tensor, ...]]) -> OnTheWay:
        """Join parts and start to copy them to the CPU."""
        joined = [torch.cat(of_parts) if len(of_parts) > 1 else of_parts[0] for of_parts in zip(*parts, strict=True)]
        if self.device.type != "cuda":
            return OnTheWay(tuple(tensor.cpu() for tensor in joined), None)
        copies = tuple(map(_to_pinned, joined))
        ready = torch.cuda.Event()
        ready.record(torch.cuda.current_stream(self.device))
        return OnTheWay(copies, ready)


def _to_pinned(tensor: Tensor) -> Tensor:
    """Start to copy a tensor to pinned memory of the CPU, without waiting for the GPU."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)


def largest_batch(memory_of: Callable[[int], int], free: int, most: int) -> int:
    """Return how many images fit into a device's memory at once: 1 to `most`, and a multiple of 8 from 8 on.

    memory_of: measures the bytes that a number of images needs; free: bytes. If even the few images of the measurement
    do not fit, it is their half.
    """
    few, more = _PROBED
    try:
        memory_of(few)  # libraries allocate their own memory at the first call
        costs = memory_of(few), memory_of(more)
    except torch.OutOfMemoryError:
        return max(1, few // 2)
    each = max(1, (costs[1] - costs[0]) // (more - few))
    fixed = max(0, costs[0] - few * each)
    count = max(1, min(most, int(_MEMORY_SHARE * free - fixed) // each))
    return count if count < 8 else count - count % 8
