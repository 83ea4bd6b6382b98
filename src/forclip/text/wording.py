"""How classes and words of a dataset are put to a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forclip.config import DataConfig
from forclip.text.templates import resolve_templates
from forclip.text.vocabulary import load_vocabulary
from forclip.types import Annotations, ClassSplit


@dataclass(frozen=True)
class Wording:
    """templates: prompts with `{}` for a name; vocabulary: words for pseudo-labels, no novel name among them.

    synonyms: none; mean: a class is also trained and searched for by its other names, all in one vector; max: it is
    searched for by each of its names, the best of which counts, and trained by its own alone. overrides: by class, what
    it is asked by instead of the templates.
    """

    templates: Sequence[str] = ("a photo of a {}",)
    vocabulary: Sequence[str] = ()
    synonyms: str = "none"
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_wording(data: DataConfig, train: Annotations, split: ClassSplit) -> Wording:
    """Raises ValueError for a template without `{}`, and for a vocabulary that can't be read."""
    others = dict(zip(train.class_names, train.synonyms, strict=True)) if train.synonyms else {}
    novel = [word for name in split.novel for word in (name, *others.get(name, ()))]
    return Wording(templates_of(data), load_vocabulary(data.vocabulary, novel), data.synonyms, data.prompts)


def templates_of(data: DataConfig) -> tuple[str, ...]:
    """Raises ValueError for a template without `{}`."""
    return resolve_templates((data.templates,) if isinstance(data.templates, str) else data.templates)
