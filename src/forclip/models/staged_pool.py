"""A pool that takes the tower's last stage with it, so that this stage can be finetuned with the head."""

from torch import Tensor, nn

from forclip.models.pools import Pool
from forclip.models.wrapped_pool import WrappedPool


class StagedPool(WrappedPool):
    """Another pool behind the tower's last stage. Tokens are what enters that stage; heads call `stage` once."""

    def __init__(self, tower_stage: nn.Module, inner: Pool) -> None:
        """tower_stage: [B, T', W'] -> the inner pool's tokens [B, T, W]. Both are owned from here on."""
        super().__init__(inner)
        self.tower_stage = tower_stage

    def train(self, mode: bool = True) -> "StagedPool":
        """The stage stays in eval mode: batch statistics are the pretrained ones, as when the tower is frozen."""
        super().train(mode)
        self.tower_stage.eval()
        return self

    def stage(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.tower_stage(tokens)
        return out

    def stage_parameters(self) -> list[nn.Parameter]:
        return list(self.tower_stage.parameters())


class MapStage(nn.Module):
    """A convolutional stage on flattened feature maps. [B, rows x columns, C] -> [B, P, C']."""

    def __init__(self, layer: nn.Module, grid: tuple[int, int]) -> None:
        """grid: (rows, columns) of what enters."""
        super().__init__()
        self.layer, self.grid = layer, grid

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.layer(tokens.transpose(1, 2).unflatten(2, self.grid))
        return out.flatten(2).transpose(1, 2)


class BlockStage(nn.Module):
    """A transformer block on tokens [B, T, W]. batch_first: whether the block itself takes them so."""

    def __init__(self, block: nn.Module, batch_first: bool) -> None:
        super().__init__()
        self.block, self.batch_first = block, batch_first

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.block(tokens if self.batch_first else tokens.transpose(0, 1))
        return out if self.batch_first else out.transpose(0, 1)
