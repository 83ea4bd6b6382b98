"""Which prompts stand for a dataset's classes: template sets, synonyms, overrides and the vocabulary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from forclip.config import DataConfig
from forclip.text.vocabulary import load_vocabulary
from forclip.types import Annotations, ClassSplit

SINGLE_TEMPLATE = ("a photo of a {}",)

TEMPLATE_SETS = ("single", "clip7", "clip80")


@dataclass(frozen=True)
class PromptOptions:
    """How a dataset's classes become prompts.

    templates: prompts with `{}` for a name. vocabulary: words for pseudo-labels, without any novel name. synonyms:
    none; mean (train and search by the mean vector of a class's names); max (search by each name, of which the best
    score counts, and train by the first). overrides: prompts by class, in place of the templates.
    """

    templates: Sequence[str] = SINGLE_TEMPLATE
    vocabulary: Sequence[str] = ()
    synonyms: str = "none"
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_prompt_options(data: DataConfig, train: Annotations, split: ClassSplit) -> PromptOptions:
    """Resolve a dataset's configuration. Raises ValueError as `resolve_templates` and `load_vocabulary` do."""
    synonyms = dict(zip(train.class_names, train.synonyms, strict=True)) if train.synonyms else {}
    novel = [word for name in split.novel for word in (name, *synonyms.get(name, ()))]
    return PromptOptions(read_templates(data), load_vocabulary(data.vocabulary, novel), data.synonyms, data.prompts)


def read_templates(data: DataConfig) -> tuple[str, ...]:
    """Resolve the configured templates. Raises ValueError as `resolve_templates` does."""
    return resolve_templates((data.templates,) if isinstance(data.templates, str) else data.templates)


def resolve_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Replace the name of a template set, given alone, by its templates; return other templates unchanged.

    Raises ValueError for a template without `{}`, for a set's name among templates, and for no template at all.
    """
    if len(templates) == 1 and templates[0] in TEMPLATE_SETS:
        return _template_set(templates[0])
    if not templates:
        raise ValueError("there is no prompt template")
    for template in templates:
        if template in TEMPLATE_SETS:
            raise ValueError(f"the template set {template!r} cannot be mixed with other templates")
        if "{}" not in template:
            sets = ", ".join(TEMPLATE_SETS)
            raise ValueError(f"prompt template {template!r} has no {{}} for the class name; template sets: {sets}")
    return tuple(templates)


@cache
def _template_set(name: str) -> tuple[str, ...]:
    """Return one template, CLIP's seven best, or its eighty (Prompt_Engineering_for_ImageNet.ipynb, openai/CLIP)."""
    if name == "single":
        return SINGLE_TEMPLATE
    # Imported late: configurations with their own templates do not need PyTorch.
    from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    functions = {"clip7": SIMPLE_IMAGENET_TEMPLATES, "clip80": OPENAI_IMAGENET_TEMPLATES}[name]
    templates = tuple(fill("{}") for fill in functions)
    for fill, template in zip(functions, templates, strict=True):
        assert fill("Tea pot") == template.replace("{}", "Tea pot"), template
    return templates
