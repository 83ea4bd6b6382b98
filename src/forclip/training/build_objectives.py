"""Choose the objectives of a training by its weights, and fit them to the head before training."""

import torch

from forclip.config import TrainConfig
from forclip.embedding.embed import BATCH_SIZE
from forclip.embedding.row_shards import one_view
from forclip.models.summary_head import SummaryHead
from forclip.training import objectives
from forclip.training.candidates import Candidate
from forclip.training.losses import max_sim
from forclip.training.score_images import score_images
from forclip.training.supervision import Supervision
from forclip.training.trainer import TrainingSet


def build_objectives(
    head: SummaryHead, data: TrainingSet, supervision: Supervision, config: TrainConfig, candidate: Candidate
) -> list[objectives.Objective]:
    """Build the objectives with a weight above 0, without those that lack a teacher; fit the base labels to the head.

    Raises ValueError if no objective is left.
    """
    terms: list[objectives.Objective] = []
    words, texts = supervision.vocabulary.cpu(), supervision.texts.cpu()
    if config.base_weight > 0:
        base_labels = objectives.BaseLabels(texts, candidate.base_loss, config.base_weight)
        positions = data.verified[0].any(1).nonzero()[:, 0]
        if len(positions):
            scores = score_images(head, one_view(data.tokens, 0), data.rows[positions], supervision.texts)
            base_labels.fit(scores, data.targets[0, positions], data.verified[0, positions])
        terms.append(base_labels)
    if data.teacher.shape[2]:
        if candidate.pseudo_weight > 0:
            settings = (config.pseudo_temperature, candidate.pseudo_weight, config.seed)
            terms.append(objectives.PseudoLabels(words, *settings))
        if candidate.set_weight > 0:
            terms.append(objectives.TeacherSet(candidate.set_weight))
        if config.random_text_weight > 0:
            terms.append(
                objectives.RandomTexts(
                    words, len(words), config.pseudo_temperature, config.random_text_weight, config.seed
                )
            )
    if config.neighbour_weight > 0 and len(texts):
        near = words[objectives.nearest_words(texts, words, config.neighbour_words)]
        if len(near):
            scores = torch.cat([max_sim(part, near) for part in data.untuned[0].split(BATCH_SIZE)])
            spread = scores.std(0).clamp(min=1e-4) if len(scores) > 1 else torch.ones(len(near))
            terms.append(objectives.NeighbourWords(near, spread, config.neighbour_weight))
    if config.diversity_weight > 0:
        terms.append(objectives.QueryDiversity(config.diversity_weight))
    if not terms:
        raise ValueError("no objective has a weight (or a teacher to follow): there is nothing to train on")
    return [term.to(head.offsets.device) for term in terms]
