"""Variants of an ablation: the default recipe with one thing changed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from forclip.config import RunConfig
from forclip.evaluation.methods import FOR, display_name

Changes = Mapping[str, Mapping[str, Any]]  # settings by section (model, head or train)
_SECTIONS = ("model", "head", "train")

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


def select_variants(file: Path | None, names: Sequence[str]) -> tuple[dict[str, Changes], list[str]]:
    """Return the built-in variants with those of the file, and the names to measure.

    file: YAML, `name: {section: {setting: value}}`. Without `names`, all built-in variants are measured, or `for` and
    the variants of the file. Raises ValueError for a file that cannot be read, naming the variant, and for an unknown
    name.
    """
    from_file: dict[str, Changes] = {}
    if file is not None:
        try:
            content = yaml.safe_load(file.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{file}: not readable as YAML: {error}") from None
        if not isinstance(content, dict) or not content:
            raise ValueError(f"{file}: must map names to changes, such as `softer: {{train: {{set_weight: 0.05}}}}`")
        for name, changes in content.items():
            sections = changes if isinstance(changes, dict) else {"": None}
            if not set(sections) <= {*_SECTIONS} or not all(isinstance(s, dict) for s in sections.values()):
                needed = ", ".join(_SECTIONS)
                raise ValueError(f"{file}: variant {name!r} needs settings under {needed}, not {changes!r}")
            from_file[str(name)] = changes
    variants = {**ABLATIONS, **from_file}
    for name in names:
        if name not in variants:
            raise ValueError(f"variant {name!r} is unknown: {', '.join(variants)}")
    return variants, list(names) or (list(variants) if file is None else list(dict.fromkeys([FOR, *from_file])))


def apply_changes(config: RunConfig, name: str, changes: Changes) -> RunConfig:
    """Return the variant's configuration. Raises ValueError for a name that is taken or a setting that is invalid."""
    if name != FOR and display_name(name) != name:
        raise ValueError(f"variant {name!r}: this is the name of a baseline")
    if "seed" in changes.get("train", {}):
        raise ValueError(f"variant {name!r}: seed cannot be changed, all variants run with the same seeds")
    try:
        return replace(config, **{section: replace(getattr(config, section), **s) for section, s in changes.items()})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"variant {name!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except TypeError as error:
        raise ValueError(f"variant {name!r}: {error}") from None


def describe_changes(changes: Changes) -> str:
    """Describe changes as in `teacher none`; a dash if there are none."""
    settings = (setting for section in changes.values() for setting in section.items())
    texts = (f"{key} {f'{value:g}' if isinstance(value, float) else value}" for key, value in settings)
    return ", ".join(texts) or "\N{EN DASH}"
