"""FOR on the toy world with the bundled mini CLIP: what `forclip demo` runs."""

from forclip.config import EvalConfig, HeadConfig, ModelConfig, RunConfig, TrainConfig
from forclip.data.toyworld import ToyWorld
from forclip.data_config import DataConfig, SourceConfig


def toyworld_config(world: ToyWorld, seed: int) -> RunConfig:
    """The complete configuration of one seed."""
    return RunConfig(
        data=DataConfig(
            train=SourceConfig(world.train_file, world.images),
            gallery=SourceConfig(world.gallery_file, world.images),
            novel=world.novel,
        ),
        model=ModelConfig(name="forclip-mini"),
        head=HeadConfig(num_query_tokens=25),
        train=TrainConfig(seed=seed),
        eval=EvalConfig(clusters=(5, 10, 25)),
    )
