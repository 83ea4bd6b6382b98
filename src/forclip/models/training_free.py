"""The heads that need no training, by name."""

from forclip.models.backbone import Backbone
from forclip.models.baselines import ClusterHead, DenseHead, Head
from forclip.models.summary_head import global_head, window_seeded_head


def training_free_head(backbone: Backbone, name: str, num_query_tokens: int = 25) -> Head:
    """On the backbone's device, in eval mode. name: global, dense, cluster_K or sum (the summary head, as windows).

    Raises ValueError for any other name, and for more clusters than the model has positions.
    """
    pool = backbone.new_pool().eval().requires_grad_(False)
    kind, _, count = name.partition("_")
    match kind:
        case "global" | "sum" if not count:
            head = global_head(pool) if kind == "global" else window_seeded_head(pool, num_query_tokens)
            return head.to(backbone.device).eval().requires_grad_(False)
        case "dense" if not count:
            return DenseHead(pool)
        case "cluster" if count.isdigit():
            return ClusterHead(pool, int(count))
    raise ValueError(f"head {name!r} is unknown: sum, global, dense or cluster_K, such as cluster_10")
