"""The pretrained models that forclip recommends, by short names, and the best-known weights of every architecture."""

import re
from dataclasses import dataclass

import open_clip
from open_clip.pretrained import get_pretrained_cfg

from forclip.models.download import HUB, cached_file
from forclip.models.mini_clip import MINI_NAME, MINI_WEIGHTS, register_mini
from forclip.text.vocabulary import did_you_mean


@dataclass(frozen=True)
class KnownModel:
    """A pretrained model. None: unknown.

    name: short, as `--model` takes it; architecture, tag: open_clip's; licence: of the weights, as their publisher
    names it; megabytes: of the download, as 32-bit floats; image_size: pixels per side; cpu_ms: milliseconds of one
    core for an image; imagenet: zero-shot accuracy in percent, as the publisher or open_clip's table gives it;
    languages: of text queries.
    """

    name: str
    architecture: str
    tag: str | None
    licence: str
    megabytes: int
    image_size: int
    cpu_ms: int | None
    imagenet: float | None
    languages: str = "English"


KNOWN_MODELS = (
    KnownModel("clip-b16", "ViT-B-16", "datacomp_xl_s13b_b90k", "MIT", 599, 224, 400, 73.5),
    KnownModel("clip-b32", "ViT-B-32-256", "datacomp_s34b_b86k", "MIT", 605, 256, 150, 72.8),
    KnownModel("clip-l14", "ViT-L-14", "datacomp_xl_s13b_b90k", "MIT", 1710, 224, 2100, 79.2),
    KnownModel("clip-h14", "ViT-H-14", "laion2b_s32b_b79k", "MIT", 3944, 224, None, 78.0),
    KnownModel("siglip2-b32", "ViT-B-32-SigLIP2-256", "webli", "Apache-2.0", 1507, 256, 150, None, "many"),
    KnownModel("siglip2-b16", "ViT-B-16-SigLIP2-256", "webli", "Apache-2.0", 1501, 256, 590, 79.1, "many"),
    KnownModel("siglip2-b16-384", "ViT-B-16-SigLIP2-384", "webli", "Apache-2.0", 1502, 384, 1300, None, "many"),
    KnownModel("siglip2-l16", "ViT-L-16-SigLIP2-256", "webli", "Apache-2.0", 3526, 256, 2100, None, "many"),
    KnownModel("siglip2-so400m", "ViT-SO400M-16-SigLIP2-384", "webli", "Apache-2.0", 4544, 384, None, 84.1, "many"),
    KnownModel("siglip-b16", "ViT-B-16-SigLIP-256", "webli", "Apache-2.0", 813, 256, 580, 76.5),
    KnownModel("eva02-b16", "EVA02-B-16", "merged2b_s8b_b131k", "MIT", 599, 224, 470, 74.7),
    KnownModel("eva02-l14-336", "EVA02-L-14-336", "merged2b_s6b_b61k", "MIT", 1713, 336, None, 80.4),
    KnownModel("pe-b16", "PE-Core-B-16", "meta", "Apache-2.0", 1791, 224, 480, None),
    KnownModel("pe-l14", "PE-Core-L-14-336", "meta", "Apache-2.0", 2685, 336, None, None),
    KnownModel("openai-rn50", "RN50", "openai", "MIT", 408, 224, 150, 59.8),
    KnownModel("openai-b16", "ViT-B-16", "openai", "MIT", 599, 224, 400, 68.3),
    KnownModel("openai-l14-336", "ViT-L-14-336", "openai", "MIT", 1712, 336, None, 76.6),
    KnownModel("mobileclip-s1", "MobileCLIP-S1", "datacompdr", "apple-amlr", 340, 256, 190, 72.6),
    KnownModel("mobileclip-s2", "MobileCLIP-S2", "datacompdr", "apple-amlr", 397, 256, 290, 74.4),
    KnownModel("mobileclip2-s0", "MobileCLIP2-S0", "dfndr2b", "apple-amlr", 300, 256, 100, None),
    KnownModel(
        "clip-b32-multilingual", "xlm-roberta-base-ViT-B-32", "laion5b_s13b_b90k", "MIT", 1465, 224, None, 62.4, "many"
    ),
    KnownModel(MINI_NAME, MINI_NAME, None, "Apache-2.0", 8, 96, None, None),
)
BY_NAME = {model.name: model for model in KNOWN_MODELS}
DEFAULT = BY_NAME["clip-b16"]

# Of architectures with several tags: the most accurate one whose licence allows any use, if there is one.
_BEST_TAGS = {
    "RN50": "openai",
    "RN101": "openai",
    "ViT-B-32": "datacomp_xl_s13b_b90k",
    "ViT-B-16": "datacomp_xl_s13b_b90k",
    "ViT-B-16-plus-240": "laion400m_e32",
    "ViT-L-14": "datacomp_xl_s13b_b90k",
    "ViT-H-14": "laion2b_s32b_b79k",
    "ViT-g-14": "laion2b_s34b_b88k",
    "ViT-bigG-14": "laion2b_s39b_b160k",
    "convnext_base_w": "laion2b_s13b_b82k_augreg",
    "convnext_base_w_320": "laion_aesthetic_s13b_b82k_augreg",
    "convnext_large_d_320": "laion2b_s29b_b131k_ft_soup",
    "convnext_xxlarge": "laion2b_s34b_b82k_augreg_soup",
    "coca_ViT-B-32": "laion2b_s13b_b90k",
    "coca_ViT-L-14": "laion2b_s13b_b90k",
    "ViT-H-14-CLIPA-336": "datacomp1b",
    "nllb-clip-base-siglip": "v1",
    "nllb-clip-large-siglip": "v1",
    "MobileCLIP-B": "datacompdr_lt",
    "RN50-quickgelu": "openai",
    "RN101-quickgelu": "openai",
    "ViT-B-32-quickgelu": "openai",
    "ViT-B-16-quickgelu": "openai",
    "ViT-L-14-quickgelu": "openai",
    "ViT-H-14-quickgelu": "dfn5b",
}


def is_architecture(name: str) -> bool:
    """Whether open_clip has an architecture of this name, in its own spelling (ViT-B-32) or OpenAI's (ViT-B/32)."""
    register_mini()
    return name.replace("/", "-") in open_clip.list_models()


def best_tag(architecture: str) -> str:
    """Return the tag of an architecture's best-known weights. Raises ValueError if nobody published any."""
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    best = _BEST_TAGS.get(architecture, tags[0] if tags else None)
    if best in tags:
        return str(best)
    if tags:
        raise ValueError(f"model {architecture!r} needs --pretrained, one of: {', '.join(tags)}")
    raise ValueError(
        f"model {architecture!r} has no published weights: give a file of them with --pretrained;"
        " --pretrained random draws random ones, for tests"
    )


def weights_on_hub(architecture: str, tag: str) -> tuple[str, tuple[str, ...]]:
    """Return where open_clip publishes a tag's weights: a repository, and names of files, of which one is there."""
    repository, _, file = get_pretrained_cfg(architecture, tag)["hf_hub"].rpartition("/")
    if not file:
        return repository, ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    return repository, (file.rsplit(".", 1)[0] + ".safetensors", file)


def is_cached(model: KnownModel) -> bool:
    """Whether a model's weights are on this machine."""
    if model.tag is None:
        return MINI_WEIGHTS.is_file()
    return cached_file(*weights_on_hub(model.architecture, model.tag)) is not None


def describe_weights(architecture: str, tag: str) -> str:
    """Describe weights in a line: the licence and size if they are known."""
    for model in KNOWN_MODELS:
        if (model.architecture, model.tag) == (architecture, tag):
            return f"{tag} (licence {model.licence}, {model.megabytes:,} MB)"
    return tag


def suggest_model(name: str) -> str:
    """Suggest a known model for a misspelt name, or a hub model for one without its prefix; or return nothing."""
    names = [*BY_NAME, *open_clip.list_models()]
    for known in names:
        if known.lower() == name.replace("/", "-").lower():
            return f"; did you mean {known!r}?"
    architecture, _, tag = name.replace(":", "/").rpartition("/")
    if open_clip.is_pretrained_cfg(architecture, tag):  # as open_clip's tables write it
        return f"; did you mean --model {architecture} --pretrained {tag}?"
    repository = name.removeprefix(f"{HUB}/")
    if re.fullmatch(r"[\w][\w.-]*/[\w.-]+", repository):
        return f"; a model of the Hugging Face hub is hf-hub:{repository}"
    return did_you_mean(name, names)
