"""What `forclip ablate` measures: the default recipe, and it with one part changed or left out."""

from collections.abc import Mapping
from typing import Any

Changes = Mapping[str, Mapping[str, Any]]  # section (model, head or train) to settings, as a file of variants has them

ABLATIONS: dict[str, Changes] = {
    "for": {},
    # Parts left out.
    "no_class_vectors": {"train": {"class_vectors": 0.0}},
    "no_teacher": {"train": {"teacher": "none"}},
    "no_alignment": {"head": {"alignment": "off"}},
    "no_base_labels": {"train": {"base_weight": 0.0}},
    "no_interpolation": {"train": {"interpolation": 1.0}},
    "only_score_distillation": {"train": {"set_weight": 0.0}},
    "only_set_distillation": {"train": {"pseudo_weight": 0.0}},
    # Parts in another form.
    "cluster_teacher": {"train": {"teacher": "cluster"}},
    "random_texts": {"train": {"random_text_weight": 0.01, "pseudo_weight": 0.0}},
    "binary_loss": {"train": {"base_loss": "binary"}},
    "softmax_loss": {"train": {"base_loss": "softmax"}},
    "noise_queries": {"head": {"seeding": "noise"}},
    "cluster_queries": {"head": {"seeding": "clusters"}},
    "queries_5": {"head": {"num_query_tokens": 5}},
    "queries_10": {"head": {"num_query_tokens": 10}},
    "queries_50": {"head": {"num_query_tokens": 50}},
    "train_queries_only": {"train": {"trainable": "queries"}},
    "train_query_key": {"train": {"trainable": "query_key"}},
    # Parts added.
    "neighbour_words": {"train": {"neighbour_weight": 0.01}},
    "query_diversity": {"train": {"diversity_weight": 0.01}},
    "ema": {"train": {"ema_decay": 0.99}},
    "last_stage": {"model": {"train_last_stage": True}},
    "views_1": {"train": {"views": 1}},
    "epochs_10": {"train": {"epochs": 10}},
    # Fewer labels.
    "labels_10": {"train": {"labelled_fraction": 0.1}},
    "labels_5": {"train": {"labelled_fraction": 0.05}},
    "labels_1": {"train": {"labelled_fraction": 0.01}},
    "labels_10_no_teacher": {"train": {"labelled_fraction": 0.1, "teacher": "none"}},
    "labels_1_no_teacher": {"train": {"labelled_fraction": 0.01, "teacher": "none"}},
}
