"""Pure: what is minimized. `scores` are raw scores of groups, (groups, passages), the positive first.

Each loss is the mean over the groups. `teacher` has the same shape: a teacher's raw scores, or graded labels.
"""

import torch
from torch.nn import functional

from pipeline.finetuning.config import LossConfig

Tensor = torch.Tensor


def objective(scores: Tensor, teacher: Tensor | None, config: LossConfig) -> Tensor:
    """The loss of (groups, passages, heads) scores: the sum over the heads.

    Where there is no teacher the last head teaches the others, as FlagEmbedding's loss of its layerwise
    reranker is written (finetune/reranker/decoder_only/layerwise/modeling.py, version 1.4.2). Its trainer
    asks the model for no cutoff layers, though, and so hands that loss the last head alone.
    """
    heads = scores.unbind(dim=-1)
    total = torch.stack([_of_head(head, teacher, config) for head in heads]).sum()
    if teacher is None:
        for head in heads[:-1]:
            total = total + soft_cross_entropy(head, heads[-1].detach())
    return total


def _of_head(scores: Tensor, teacher: Tensor | None, config: LossConfig) -> Tensor:
    if config.name == "binary_cross_entropy":
        return binary_cross_entropy(scores)
    if config.name == "cross_entropy":
        hard = cross_entropy(scores)
        return hard if teacher is None else hard + soft_cross_entropy(scores, teacher)
    assert teacher is not None
    if config.name == "kl_divergence":
        soft = kl_divergence(scores, teacher, config.temperature)
        return (
            soft if config.weight == 1 else config.weight * soft + (1 - config.weight) * cross_entropy(scores)
        )
    by_name = {"mse": mse, "margin_mse": margin_mse, "listnet": soft_cross_entropy, "lambdarank": lambdarank}
    return by_name[config.name](scores, teacher)


def cross_entropy(scores: Tensor) -> Tensor:
    """-log softmax(scores)[0]: the positive against the group's others. FlagEmbedding's loss."""
    return functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))


def binary_cross_entropy(scores: Tensor) -> Tensor:
    """Of each pair alone: the positive is 1, the others are 0 (Nogueira and Cho, 2019, arXiv:1901.04085)."""
    labels = torch.zeros_like(scores)
    labels[:, 0] = 1
    return functional.binary_cross_entropy_with_logits(scores, labels)


def soft_cross_entropy(scores: Tensor, teacher: Tensor) -> Tensor:
    """-sum softmax(teacher) log softmax(scores).

    FlagEmbedding adds this to its cross-entropy under knowledge_distillation; of graded labels it is
    ListNet's top-one loss (Cao et al., 2007, Learning to Rank: From Pairwise Approach to Listwise Approach).
    """
    return -(teacher.softmax(dim=-1) * scores.log_softmax(dim=-1)).sum(dim=-1).mean()


def kl_divergence(scores: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(scores / T)) (Hinton et al., 2015, arXiv:1503.02531).

    The square keeps the size of gradients where the temperature changes.
    """
    log_student = (scores / temperature).log_softmax(dim=-1)
    log_teacher = (teacher / temperature).log_softmax(dim=-1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def mse(scores: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of raw scores, over all pairs."""
    return functional.mse_loss(scores, teacher)


def margin_mse(scores: Tensor, teacher: Tensor) -> Tensor:
    """The same of the positive's margins over the others (Hofstätter et al., 2020, arXiv:2010.02666)."""
    return functional.mse_loss(scores[:, :1] - scores[:, 1:], teacher[:, :1] - teacher[:, 1:])


def lambdarank(scores: Tensor, labels: Tensor) -> Tensor:
    """Sum over pairs of unlike labels of |change of nDCG if they swapped| log2(1 + exp(-(s_i - s_j))).

    Gains are 2^label - 1 (Burges, 2010, From RankNet to LambdaRank to LambdaMART; as a loss Wang et al.,
    2018, The LambdaLoss Framework). Labels below 0 count as 0. A group of equal labels has loss 0.
    """
    labels = labels.clamp(min=0)
    top = labels.max(dim=-1, keepdim=True).values
    gains = 2.0 ** (labels - top) - 2.0**-top  # all over 2^top, which cancels below and may be past float32
    ranks = scores.detach().argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    discounts = 1 / torch.log2(ranks + 2.0)
    places = torch.arange(gains.shape[1], device=gains.device)
    ideal = (gains.sort(dim=-1, descending=True).values / torch.log2(places + 2.0)).sum(dim=-1)
    change = (gains[:, :, None] - gains[:, None, :]) * (discounts[:, :, None] - discounts[:, None, :])
    weights = change.abs() / ideal.clamp(min=1e-12)[:, None, None]
    better = labels[:, :, None] > labels[:, None, :]
    losses = functional.softplus(-(scores[:, :, None] - scores[:, None, :])) / torch.log(torch.tensor(2.0))
    return (losses * weights * better).sum(dim=(1, 2)).mean()
