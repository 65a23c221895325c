"""The one decision rule, the choice of its threshold, and what both are worth on labelled windows.

A window is an attack iff its score lies *above* the threshold. Detectors, baselines, fusion, its reward and the service
all ask `decide`. Shapes: W windows.
"""

from __future__ import annotations

import math
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from predact.runtime.errors import PredactError

NEUTRAL_THRESHOLD = 0.5

# Benign windows to each tolerated false alarm; integers, because .01 · 2900 need not be 29.
BENIGN_PER_FALSE_ALARM = {"recall_at_fpr_1e-2": 100, "recall_at_fpr_1e-3": 1_000, "recall_at_fpr_1e-4": 10_000}


@overload
def decide(score: Tensor, threshold: float) -> Tensor: ...
@overload
def decide(score: NDArray[Any], threshold: float) -> NDArray[np.bool_]: ...
def decide(score: Any, threshold: float) -> Any:
    """Return True where `score` is an attack, that is strictly above `threshold`; a tensor for a tensor."""
    return score > threshold


def choose_threshold(score: ArrayLike, label: ArrayLike) -> float:
    """Return a threshold of highest F1 on validation within what chance explains, and of those the nearest to .5.

    F1 is constant between neighbouring scores, and over many such stretches differs by a window or two, which is chance
    and moves on the next capture. By the one-standard-error rule (Breiman et al. 1984, section 3.4.3) every stretch
    counts as best whose F1 is within one standard error of the highest. Where one of them holds .5, the threshold is
    .5; else the middle of the one that is nearest to .5.

    Args:
        score: (W,) any range, finite.
        label: (W,) 1 for attack.

    Raises:
        PredactError: A class is missing, so that no threshold can be told from another.
    """
    scores, attacks = _checked(score, label)
    for name, present in (("attack", attacks.any()), ("benign", not attacks.all())):
        if not present:
            raise PredactError(
                f"none of the {len(attacks)} validation windows is {name}; a threshold needs both: use more captures"
            )
    low, high, f1 = _f1_stretches(scores, attacks)
    lowest = f1.max() - f1_standard_error(float(f1.max()), int(attacks.sum()))
    # Among a few attacks chance reaches down to flagging nothing.
    best = (f1 >= lowest) & (f1 > 0)
    low, high = low[best], high[best]
    if np.any((low <= NEUTRAL_THRESHOLD) & (high > NEUTRAL_THRESHOLD)):
        return NEUTRAL_THRESHOLD
    middle = (low + high) / 2
    nearest = int(np.argmin(np.abs(middle - NEUTRAL_THRESHOLD)))
    # Scores are float32: a middle that rounds up to the next score would stop flagging it.
    rounded = float(np.float32(middle[nearest]))
    return rounded if low[nearest] <= rounded < high[nearest] else float(low[nearest])


def binary_metrics(score: ArrayLike, label: ArrayLike, *, threshold: float, hours: float) -> dict[str, float | None]:
    """Return every detection metric of one set of windows; None where it is undefined (no attack, or no benign window).

    `recall_at_fpr_*` is the recall at the lowest threshold whose false positive rate does not exceed the bound.

    Args:
        score: (W,) finite.
        label: (W,) 1 for attack.
        threshold: Fixed on validation.
        hours: Traffic that the windows cover, for `false_alarms_per_hour`.
    """
    scores, attacks = _checked(score, label)
    decisions = decide(scores, threshold)
    tp, fp = int(np.sum(decisions & attacks)), int(np.sum(decisions & ~attacks))
    fn, tn = int(np.sum(~decisions & attacks)), int(np.sum(~decisions & ~attacks))
    num_attacks, num_benign = tp + fn, fp + tn
    has_both = num_attacks > 0 and num_benign > 0
    metrics: dict[str, float | None] = {
        "precision": _ratio(tp, tp + fp) if num_attacks else None,
        "recall": _ratio(tp, num_attacks),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn) if num_attacks else None,
        "auroc": float(roc_auc_score(attacks, scores)) if has_both else None,
        "average_precision": float(average_precision_score(attacks, scores)) if has_both else None,
        "mcc": matthews_correlation(tp=tp, fp=fp, fn=fn, tn=tn) if has_both else None,
        "fpr": _ratio(fp, num_benign),
        "false_alarms_per_hour": fp / hours if hours > 0 else None,
    }
    for name, benign_per_false_alarm in BENIGN_PER_FALSE_ALARM.items():
        metrics[name] = _recall_at(scores, attacks, benign_per_false_alarm) if has_both else None
    return metrics | {"windows": len(attacks), "attack_share": _ratio(num_attacks, len(attacks))}


def matthews_correlation(*, tp: int, fp: int, fn: int, tn: int) -> float:
    """Return Matthews (1975)'s correlation of decisions and labels; 0 where all decisions are equal."""
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return (tp * tn - fp * fn) / math.sqrt(product) if product else 0.0


def _checked(score: ArrayLike, label: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores, attacks = np.asarray(score, dtype=np.float64), np.asarray(label, dtype=np.bool_)
    if scores.shape != attacks.shape or scores.ndim != 1:
        raise ValueError(f"scores of shape {scores.shape} and labels of shape {attacks.shape} are not one window each")
    if broken := int(np.sum(~np.isfinite(scores))):
        raise PredactError(
            f"{broken} of {len(scores)} scores are NaN or infinite; train the model with a lower learning rate"
        )
    return scores, attacks


def _f1_stretches(
    scores: NDArray[np.float64], attacks: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (low, high, f1), each (distinct scores + 1,): thresholds in [low, high) give that F1.

    The first stretch lies below every score. The last flags nothing, so its F1 of 0 is never the best.
    """
    distinct, position = np.unique(scores, return_inverse=True)
    attacks_at = np.bincount(position, weights=attacks, minlength=len(distinct))
    windows_at = np.bincount(position, minlength=len(distinct))
    flagged_attacks = attacks.sum() - np.concatenate([[0.0], np.cumsum(attacks_at)])
    flagged = len(attacks) - np.concatenate([[0], np.cumsum(windows_at)])
    f1 = 2 * flagged_attacks / (flagged + attacks.sum())
    bottom = 0.0 if distinct[0] > 0 else distinct[0] - 1.0
    top = max(1.0, distinct[-1])
    return np.concatenate([[bottom], distinct]), np.concatenate([distinct, [top]]), f1


def f1_standard_error(f1: float, num_attacks: int) -> float:
    """Return the standard error of F1, as that of a share of the attack windows; none at an F1 of 1."""
    return math.sqrt(max(f1 * (1 - f1), 0.0) / num_attacks)


def _recall_at(scores: NDArray[np.float64], attacks: NDArray[np.bool_], benign_per_false_alarm: int) -> float:
    benign = np.sort(scores[~attacks])
    allowed = len(benign) // benign_per_false_alarm
    lowest_threshold = float(benign[len(benign) - 1 - allowed])
    return float(np.mean(decide(scores[attacks], lowest_threshold)))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
