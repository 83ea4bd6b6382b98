"""Pretrain the bundled mini CLIP from scratch on captioned postcards of the toy world.

    python -m forclip.toyworld.pretraining --out forclip-mini.safetensors

A caption always names the salient object and seldom another one. Captions of this kind make real CLIP models miss small
objects. The objective is CLIP's symmetric contrastive loss (arXiv 2103.00020). A batch shows each salient object once,
so that every postcard has exactly one correct caption in its batch.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.interrupts import ignore_interrupts
from forclip.models.mini_clip import MINI_NAME, register_mini
from forclip.toyworld import pictographs, scenes

_RENDERED_SIDE = 192  # postcards are drawn at twice the tower's input and reduced, as a photo would be
_SIDE = 96
_LARGE_FRACTION = 0.4  # of the postcards: those with the largest salient objects
_TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "a drawing of a {}",
    "an image of a {}",
    "a {}",
    "the {}",
    "{}",
    "a postcard with a {}",
)


@dataclass(frozen=True)
class MiniClipRecipe:
    """Settings of the pretraining; the defaults produced the bundled weights.

    One step takes one batch, which shows every pictograph once as the salient object. second_object_probability: that a
    caption also names another object. Training starts with large salient objects only, because small ones teach
    nothing at first: easy_fraction of the steps uses large ones, ramp_fraction adds smaller ones step by step.
    """

    postcards_per_name: int = 240
    steps: int = 2000
    warmup_steps: int = 200
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    second_object_probability: float = 0.15
    easy_fraction: float = 0.35
    ramp_fraction: float = 0.30
    seed: int = 0


@dataclass(frozen=True)
class Postcards:
    """All postcards in memory. Captions are drawn from their contents at each step.

    pixels: [names, per name, 3, side, side] uint8; a name's postcards are sorted by the size of the salient object,
    largest first. contents: the objects of each postcard, in the same order.
    """

    pixels: Tensor
    contents: list[list[tuple[scenes.PlacedObject, ...]]]

    def num_eligible(self, step: int, recipe: MiniClipRecipe) -> int:
        """Number of postcards per name, largest first, that training uses at a step."""
        ramp = (step / recipe.steps - recipe.easy_fraction) / recipe.ramp_fraction
        fraction = _LARGE_FRACTION + (1 - _LARGE_FRACTION) * min(1.0, max(0.0, ramp))
        return max(1, round(fraction * len(self.contents[0])))


def draw_postcards(recipe: MiniClipRecipe, progress: Progress) -> Postcards:
    """Draw the postcards of all names, in several processes."""
    names = pictographs.NAMES
    pixels = torch.empty(len(names), recipe.postcards_per_name, 3, _SIDE, _SIDE, dtype=torch.uint8)
    contents: list[list[tuple[scenes.PlacedObject, ...]]] = []
    with ProcessPoolExecutor(initializer=ignore_interrupts) as workers:
        drawn = workers.map(partial(_draw_salient, recipe), range(len(names)))
        for row, (images, objects) in enumerate(progress.track(drawn, len(names), description="drawing postcards")):
            pixels[row] = torch.from_numpy(images).permute(0, 3, 1, 2)
            contents.append(objects)
    return Postcards(pixels, contents)


def _draw_salient(recipe: MiniClipRecipe, row: int) -> tuple[np.ndarray, list[tuple[scenes.PlacedObject, ...]]]:
    """Draw all postcards of one salient pictograph. Returns pixels [per name, side, side, 3] uint8, and the objects."""
    rng = np.random.default_rng([recipe.seed, 0, row])
    salient = pictographs.NAMES[row]
    rest = [n for n in pictographs.NAMES if n != salient]
    others = [rng.choice(rest, rng.integers(0, 5), replace=False).tolist() for _ in range(recipe.postcards_per_name)]
    drawn = [scenes.postcard(rng, (salient, *names), _RENDERED_SIDE) for names in others]
    drawn.sort(key=lambda scene: _longer_side(scene.objects[0]), reverse=True)
    return np.stack([np.asarray(scene.image.reduce(2)) for scene in drawn]), [scene.objects for scene in drawn]


def _longer_side(thing: scenes.PlacedObject) -> float:
    x0, y0, x1, y1 = thing.box
    return max(x1 - x0, y1 - y0)


def caption(
    rng: np.random.Generator, objects: tuple[scenes.PlacedObject, ...], second_object_probability: float
) -> str:
    """Write a caption that names the first object, often with its colour, and sometimes one other object."""
    words = f"{objects[0].tint} {objects[0].name}" if rng.random() < 0.4 else objects[0].name
    if len(objects) > 1 and rng.random() < second_object_probability:
        other = objects[rng.integers(1, len(objects))]
        words += f" {rng.choice(['and', 'with', 'next to'])} a {rng.choice(['', 'small '])}{other.name}"
    return str(rng.choice(_TEMPLATES)).format(words)


def augment(rng: np.random.Generator, pixels: Tensor) -> Tensor:
    """Mirror, shift, and change contrast and colour at random, then apply CLIP's normalisation.

    pixels: [B, 3, side, side] uint8. Returns float32 of the same shape.
    """
    flipped = torch.from_numpy(rng.random(len(pixels)) < 0.5)[:, None, None, None]
    pixels = torch.where(flipped, pixels.flip(-1), pixels)
    shift_y, shift_x = rng.integers(-6, 7, 2)
    images = torch.roll(pixels, (int(shift_y), int(shift_x)), (-2, -1)).float() / 255
    gain = torch.from_numpy(rng.uniform(0.6, 1.3, (len(pixels), 1, 1, 1))).float()
    lift = torch.from_numpy(rng.uniform(-0.25, 0.25, (len(pixels), 3, 1, 1))).float()
    images = ((images - 0.5) * gain + 0.5 + lift).clamp(0, 1)
    mean, std = (torch.tensor(s)[:, None, None] for s in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    return (images - mean) / std


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy. images, texts: [B, D] unit vectors, text i belongs to image i; scale: scalar."""
    logits = scale * images @ texts.T
    targets = torch.arange(len(images))
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def pretrain(recipe: MiniClipRecipe) -> nn.Module:
    """Pretrain the mini CLIP. Returns it in eval mode, float32."""
    torch.manual_seed(recipe.seed)
    register_mini()
    model = open_clip.create_model(MINI_NAME).to(memory_format=torch.channels_last)
    tokenizer = open_clip.get_tokenizer(MINI_NAME)
    optimizer = torch.optim.AdamW(
        _parameter_groups(model, recipe.weight_decay), lr=recipe.learning_rate, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        recipe.steps,
        pct_start=min(0.5, recipe.warmup_steps / recipe.steps),
        cycle_momentum=False,
    )
    with Progress() as progress:
        postcards = draw_postcards(recipe, progress)
        rng = np.random.default_rng([recipe.seed, 1])
        task = progress.add_task("pretraining", total=recipe.steps)
        model.train()
        running = 0.0
        for step in range(recipe.steps):
            rows = rng.permutation(len(pictographs.NAMES))
            columns = rng.integers(0, postcards.num_eligible(step, recipe), len(rows))
            texts = [
                caption(rng, postcards.contents[r][c], recipe.second_object_probability)
                for r, c in zip(rows, columns, strict=True)
            ]
            images = augment(rng, postcards.pixels[rows, columns]).contiguous(memory_format=torch.channels_last)
            loss = contrastive_loss(
                model.encode_image(images, normalize=True),
                model.encode_text(tokenizer(texts), normalize=True),
                model.logit_scale.exp().clamp(max=100),
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            running += 0.02 * (loss.item() - running) if step else loss.item()
            progress.update(task, advance=1, description=f"pretraining, loss {running:.3f}")
    trained: nn.Module = model.eval()
    return trained


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="safetensors file for the weights, in half precision")
    parser.add_argument("--steps", type=int, default=MiniClipRecipe.steps, help="number of training steps")
    parser.add_argument(
        "--postcards-per-name",
        type=int,
        default=MiniClipRecipe.postcards_per_name,
        help="postcards that show a pictograph as the salient object",
    )
    args = parser.parse_args()
    model = pretrain(MiniClipRecipe(steps=args.steps, postcards_per_name=args.postcards_per_name))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file({k: v.contiguous() for k, v in halves.items()}, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
