"""Candidates: the objectives, their weights and what they train, of which trial trainings choose one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from forclip.config import TrainConfig

TeacherName = Literal["none", "start", "cluster", "zoom"]


@dataclass(frozen=True)
class Candidate:
    """What a head is trained with. The fields are those of TrainConfig, all decided.

    with_share: whether the head trains with the start's share of plain CLIP in its vectors. It does if it should stay
    like the start; otherwise, its own vectors have to learn all that they can. step_size: not used if the configuration
    sets a learning rate. self_training: whether it also trains on guessed labels of the images without labels.
    """

    teacher: TeacherName
    pseudo_weight: float
    set_weight: float
    base_loss: Literal["binary", "asymmetric", "softmax"] = "asymmetric"
    trainable: Literal["queries", "query_key", "all"] = "all"
    with_share: bool = False
    step_size: float = 0.04
    self_training: bool = False

    @property
    def sees_all(self) -> bool:
        """Whether it learns from images without labels."""
        return self.teacher != "none" or self.self_training


FIRST_GUESSES = "finetuning on first guesses"  # the stage of a self-training before its last one
AUTOMATIC: tuple[TeacherName, ...] = ("start", "cluster", "none")  # tried by `teacher: auto`
# The weights were found on the development sets of docs/development/measurements.md. The start has a large weight: it
# keeps the scores that training on labels would change. Labels alone teach more in larger steps. A teacher is followed
# in smaller ones, and so are labels with tiles: in larger ones, both forget more of classes without labels.
_DEFAULTS: Mapping[TeacherName, Candidate] = {
    "start": Candidate("start", pseudo_weight=3.0, set_weight=0.0, base_loss="softmax", with_share=True),
    "cluster": Candidate("cluster", pseudo_weight=1.0, set_weight=1.0),
    "zoom": Candidate("zoom", pseudo_weight=0.1, set_weight=0.1),
    "none": Candidate("none", pseudo_weight=0.0, set_weight=0.0, step_size=0.08),
}
CAREFUL_STEP = 0.04  # of labels alone with tiles, and where a teacher is better in short trials


def candidates_of(
    config: TrainConfig, teachers: Sequence[TeacherName], some_unlabelled: bool = False, tiles: bool = False
) -> list[Candidate]:
    """Return the candidates of a configuration, without repetitions. What it sets replaces what they propose.

    teachers: those to try if the configuration leaves the choice open, the preferred one first; some_unlabelled:
    whether there are images to guess labels of; tiles: whether the model embeds tiles of each image, too.
    """
    names = teachers if config.teacher == "auto" else (config.teacher,)
    labels_step = config.step_size or (CAREFUL_STEP if tiles else _DEFAULTS["none"].step_size)
    candidates = []
    for name in names:
        changes = {
            key: getattr(config, key)
            for key in ("pseudo_weight", "set_weight", "base_loss", "trainable", "step_size")
            if getattr(config, key) is not None
        }
        if name == "none":
            changes |= {"pseudo_weight": 0.0, "set_weight": 0.0}
        candidate = replace(_DEFAULTS[name], **changes)
        if not (candidate.pseudo_weight or candidate.set_weight or config.random_text_weight):
            candidate = replace(candidate, teacher="none", with_share=False)  # nothing follows it
        if candidate.teacher == "none":
            candidate = replace(candidate, step_size=labels_step)
        candidates.append(candidate)
    if some_unlabelled and config.base_weight > 0 and config.self_training is not False:
        candidates = _with_guesses(candidates, config)
    return list(dict.fromkeys(candidates))


def _with_guesses(candidates: Sequence[Candidate], config: TrainConfig) -> list[Candidate]:
    """Return the candidates with those that train on guessed labels."""
    if config.teacher != "auto":
        guessing = [replace(candidate, self_training=True) for candidate in candidates]
        return guessing if config.self_training else [*candidates, *guessing]
    labels_alone = next(candidate for candidate in candidates if candidate.teacher == "none")
    guessing = [replace(labels_alone, self_training=True)]
    if config.self_training:
        return guessing
    # Labels guessed by the zoom teacher teach more than its scores do, and more than the few labels alone. Short trials
    # don't show it: they are too short for labels, and scores are learned faster.
    by_zoom = any(candidate.teacher == "zoom" for candidate in candidates)
    others = [c for c in candidates if c.teacher not in ("zoom", "none")] if by_zoom else candidates
    return [*others, *guessing]
