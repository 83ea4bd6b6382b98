"""What `forclip ablate` measures: the default recipe, and it with one part changed or left out."""

from collections.abc import Mapping
from typing import Any

Changes = tuple[Mapping[str, Any], Mapping[str, Any]]  # of HeadConfig and of TrainConfig

ABLATIONS: dict[str, Changes] = {
    "for": ({}, {}),
    # Parts left out.
    "no_class_vectors": ({}, {"class_vectors": 0.0}),
    "no_teacher": ({}, {"teacher": "none"}),
    "no_alignment": ({"alignment": "off"}, {}),
    "no_base_labels": ({}, {"base_weight": 0.0}),
    "no_interpolation": ({}, {"interpolation": 1.0}),
    "only_score_distillation": ({}, {"set_weight": 0.0}),
    "only_set_distillation": ({}, {"pseudo_weight": 0.0}),
    # Parts in another form.
    "cluster_teacher": ({}, {"teacher": "cluster"}),
    "random_texts": ({}, {"random_text_weight": 0.01, "pseudo_weight": 0.0}),
    "binary_loss": ({}, {"base_loss": "binary"}),
    "softmax_loss": ({}, {"base_loss": "softmax"}),
    "noise_queries": ({"seeding": "noise"}, {}),
    "queries_5": ({"num_query_tokens": 5}, {}),
    "queries_10": ({"num_query_tokens": 10}, {}),
    "queries_50": ({"num_query_tokens": 50}, {}),
    "train_queries_only": ({}, {"trainable": "queries"}),
    "train_query_key": ({}, {"trainable": "query_key"}),
    # Parts added.
    "neighbour_words": ({}, {"neighbour_weight": 0.01}),
    "query_diversity": ({}, {"diversity_weight": 0.01}),
    "ema": ({}, {"ema_decay": 0.99}),
    "views_3": ({}, {"views": 3}),
    # Fewer labels.
    "labels_10": ({}, {"labelled_fraction": 0.1}),
    "labels_5": ({}, {"labelled_fraction": 0.05}),
    "labels_1": ({}, {"labelled_fraction": 0.01}),
}
