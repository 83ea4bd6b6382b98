"""Naive loops over plain floats that compute what forclip.training.losses computes: slow and easy to check by eye."""

import math
from collections.abc import Callable, Sequence

Vector = Sequence[float]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def max_sim(vectors: Sequence[Sequence[Vector]], texts: Sequence[Vector]) -> list[list[float]]:
    """vectors: one list of vectors per image. Returns a row per image, a column per text."""
    return [[max(dot(vector, text) for vector in image) for text in texts] for image in vectors]


def binary_loss(
    logits: Sequence[Vector], targets: Sequence[Sequence[bool]], verified: Sequence[Sequence[bool]]
) -> float:
    def of_pair(logit: float, positive: bool) -> float:
        probability = 1 / (1 + math.exp(-logit))
        return -math.log(probability if positive else 1 - probability)

    return _mean_of_verified(of_pair, logits, targets, verified)


def asymmetric_loss(
    logits: Sequence[Vector],
    targets: Sequence[Sequence[bool]],
    verified: Sequence[Sequence[bool]],
    gamma_pos: float,
    gamma_neg: float,
    clip: float,
) -> float:
    def of_pair(logit: float, positive: bool) -> float:
        probability = 1 / (1 + math.exp(-logit))
        if positive:
            return -math.pow(1 - probability, gamma_pos) * math.log(probability)
        shifted = max(probability - clip, 0.0)
        return -math.pow(shifted, gamma_neg) * math.log(1 - shifted)

    return _mean_of_verified(of_pair, logits, targets, verified)


def softmax_loss(
    scores: Sequence[Vector],
    targets: Sequence[Sequence[bool]],
    verified: Sequence[Sequence[bool]],
    temperature: float,
) -> float:
    losses = []
    for row, labels, known in zip(scores, targets, verified, strict=True):
        for p in range(len(row)):
            if known[p] and labels[p]:
                positive, negatives = math.exp(row[p] / temperature), 0.0
                for n in range(len(row)):
                    if known[n] and not labels[n]:
                        negatives += math.exp(row[n] / temperature)
                losses.append(-math.log(positive / (positive + negatives)))
    return _mean(losses)


def set_distillation(student: Sequence[Sequence[Vector]], teacher: Sequence[Sequence[Vector]]) -> float:
    distances = []
    for of_student, of_teacher in zip(student, teacher, strict=True):
        for wanted in of_teacher:
            distances.append(min(1 - dot(wanted, offered) for offered in of_student))
    return _mean(distances)


def score_distillation(
    student: Sequence[Sequence[Vector]],
    teacher: Sequence[Sequence[Vector]],
    texts: Sequence[Vector],
    temperature: float,
) -> float:
    """The mean over images of KL(teacher || student) between softmaxes over texts."""
    divergence = 0.0
    for wanted, got in zip(max_sim(teacher, texts), max_sim(student, texts), strict=True):
        p, q = _softmax(wanted, temperature), _softmax(got, temperature)
        divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return divergence / len(student)


def preservation_loss(scores: Sequence[Vector], reference: Sequence[Vector], spread: Vector) -> float:
    changes = []
    for now, before in zip(scores, reference, strict=True):
        for text in range(len(spread)):
            changes.append(((now[text] - before[text]) / spread[text]) ** 2)
    return _mean(changes)


def query_diversity(vectors: Sequence[Sequence[Vector]]) -> float:
    overlaps = []
    for image in vectors:
        for n in range(len(image)):
            for m in range(len(image)):
                if n != m:
                    overlaps.append(max(0.0, dot(image[n], image[m])) ** 2)
    return _mean(overlaps)


def nearest_words(base: Sequence[Vector], vocabulary: Sequence[Vector], count: int) -> list[int]:
    """Rows of the vocabulary, closest to a base text first, without those whose cosine to one is above 0.999."""
    closeness = {}
    for row, word in enumerate(vocabulary):
        highest = max(dot(word, text) for text in base)
        if highest <= 0.999:
            closeness[row] = highest
    return sorted(closeness, key=lambda row: -closeness[row])[:count]


def _softmax(scores: Vector, temperature: float) -> list[float]:
    exponentials = [math.exp(s / temperature) for s in scores]
    return [e / sum(exponentials) for e in exponentials]


def _mean_of_verified(
    of_pair: Callable[[float, bool], float],
    logits: Sequence[Vector],
    targets: Sequence[Sequence[bool]],
    verified: Sequence[Sequence[bool]],
) -> float:
    losses = []
    for row, labels, known in zip(logits, targets, verified, strict=True):
        losses += [of_pair(x, y) for x, y, k in zip(row, labels, known, strict=True) if k]
    return _mean(losses)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
