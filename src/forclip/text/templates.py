"""Prompt templates by name: one, CLIP's seven best and all of its eighty."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

_NAMES = ("single", "clip7", "clip80")


@cache
def _read_set(name: str) -> tuple[str, ...]:
    """open_clip's lists are OpenAI's (Prompt_Engineering_for_ImageNet.ipynb of github.com/openai/CLIP)."""
    if name == "single":
        return ("a photo of a {}",)
    # Late: a config that names its own templates has no use for torch.
    from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    fill = {"clip7": SIMPLE_IMAGENET_TEMPLATES, "clip80": OPENAI_IMAGENET_TEMPLATES}[name]
    return tuple(_as_template(function) for function in fill)


def _as_template(fill: Callable[[str], str]) -> str:
    """From a function that sets a name into a sentence, once and as it is, to the sentence with `{}`."""
    template = fill("{}")
    assert template.count("{}") == 1, template
    assert fill("Tea pot") == template.replace("{}", "Tea pot"), template
    return template


class _TemplateSets(Mapping[str, tuple[str, ...]]):
    """Its names are known at once, its templates when they are asked for."""

    def __getitem__(self, name: str) -> tuple[str, ...]:
        if name not in _NAMES:
            raise KeyError(name)
        return _read_set(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


TEMPLATE_SETS: Mapping[str, tuple[str, ...]] = _TemplateSets()


def resolve_templates(given: Sequence[str]) -> tuple[str, ...]:
    """The templates of a set, where its name alone is given; else what is given.

    Raises ValueError for a template without `{}`, and where there is none.
    """
    if len(given) == 1 and given[0] in _NAMES:
        return TEMPLATE_SETS[given[0]]
    if not given:
        raise ValueError("there is no prompt template")
    for template in given:
        if template in _NAMES:
            raise ValueError(f"the set of prompt templates {template!r} stands alone, not among others")
        if "{}" not in template:
            sets = ", ".join(_NAMES)
            raise ValueError(
                f"prompt template {template!r} has no {{}} for the class name, and is no set; sets: {sets}"
            )
    return tuple(given)
