"""What a finetuning chose on base labels, with the evidence: the content of a run's choices.json."""

from dataclasses import asdict, dataclass
from typing import Any

from forclip.training.candidates import Candidate, TeacherName
from forclip.training.class_holdout import Evidence
from forclip.training.gains import Gain


@dataclass(frozen=True)
class Choices:
    """What was chosen on base labels, and the evidence.

    aligned, pooled_share: of the head before training; start_gains: of each choice of both, in mean AP of base classes
    over the simplest one. zoom_gain: of the zoom teacher over the start, None if it was not tried. candidate: what
    the head was trained with; candidates: of each one, what short trials measured. alpha: how far the head is from the
    start (0) to the trained head (1); share: of plain CLIP in the final head; finalists: of each candidate with full
    trials, what they measured.
    class_vectors: the kept part of the shifts; class_vector_gains: of each part over none. guessed_by: the teacher
    whose scores labelled unlabelled images, if the head trained on guesses.
    """

    labelled_images: int
    aligned: bool
    pooled_share: float
    start_gains: dict[str, Gain]
    zoom_gain: Gain | None
    candidate: Candidate
    candidates: dict[Candidate, Evidence]
    finalists: dict[Candidate, Evidence]
    alpha: float
    share: float
    class_vectors: float
    class_vector_gains: dict[float, Gain]
    guessed_by: TeacherName | None = None

    @property
    def teacher(self) -> str | None:
        """The name of the teacher that the head followed."""
        return None if self.candidate.teacher == "none" else self.candidate.teacher

    @property
    def evidence(self) -> Evidence:
        """What the full trials of the chosen candidate measured; empty without trials."""
        return self.finalists.get(self.candidate, {})

    def to_json(self) -> dict[str, Any]:
        """Return plain values. `share` is the file format's name of alpha."""
        return {
            "labelled_images": self.labelled_images,
            "aligned": self.aligned,
            "start_pooled_share": self.pooled_share,
            "start_gains": {name: _gain_to_json(gain) for name, gain in self.start_gains.items()},
            "zoom_gain": None if self.zoom_gain is None else _gain_to_json(self.zoom_gain),
            "teacher": self.teacher,
            "candidate": asdict(self.candidate),
            "guessed_by": self.guessed_by,
            "candidates": _candidates_to_json(self.candidates),
            "finalists": _candidates_to_json(self.finalists),
            "share": self.alpha,
            "share_gains": {
                str(setting.alpha): [round(measured.unseen.mean, 3), round(measured.unseen.shrunk, 3)]
                for setting, measured in self.evidence.items()
                if setting.share == self.share
            },
            "pooled_share": self.share,
            "settings": _evidence_to_json(self.evidence),
            "class_vectors": self.class_vectors,
            "class_vector_gains": {str(s): _gain_to_json(gain) for s, gain in self.class_vector_gains.items()},
        }


def _gain_to_json(gain: Gain) -> dict[str, float]:
    return {key: round(value, 3) for key, value in {**asdict(gain), "shrunk": gain.shrunk}.items()}


def _candidates_to_json(measured: dict[Candidate, Evidence]) -> list[dict[str, Any]]:
    return [{**asdict(candidate), "settings": _evidence_to_json(evidence)} for candidate, evidence in measured.items()]


def _evidence_to_json(evidence: Evidence) -> list[dict[str, Any]]:
    return [
        {
            "share": setting.alpha,
            "pooled_share": setting.share,
            "unseen": _gain_to_json(measured.unseen),
            "seen": round(measured.seen, 3),
        }
        for setting, measured in evidence.items()
    ]
