"""A pool round another one, which does all that the outer one does not change."""

from torch import Tensor, nn

from forclip.models.pools import Pool


class WrappedPool(Pool):
    """Hands everything on to `inner`."""

    def __init__(self, inner: Pool) -> None:
        """inner is owned from here on."""
        super().__init__(inner.grid, inner.width, inner.dim, inner.num_heads, inner.num_prefix)
        self.inner = inner

    def stage(self, tokens: Tensor) -> Tensor:
        return self.inner.stage(tokens)

    def stage_parameters(self) -> list[nn.Parameter]:
        return self.inner.stage_parameters()

    def attended(self, tokens: Tensor) -> Tensor:
        return self.inner.attended(tokens)

    def own_query(self, tokens: Tensor) -> Tensor:
        return self.inner.own_query(tokens)

    def positions(self, tokens: Tensor) -> Tensor:
        return self.inner.positions(tokens)

    def normalise(self, x: Tensor) -> Tensor:
        return self.inner.normalise(x)

    def finish(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        return self.inner.finish(attention_output, residual)

    def forward(self, tokens: Tensor, queries: Tensor, bias: Tensor | None = None) -> Tensor:
        out: Tensor = self.inner(tokens, queries, bias)
        return out

    def weights(self, tokens: Tensor, queries: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.inner.weights(tokens, queries, bias)

    def dense(self, tokens: Tensor) -> Tensor:
        return self.inner.dense(tokens)

    def query_key_parameters(self) -> list[nn.Parameter]:
        return self.inner.query_key_parameters()
