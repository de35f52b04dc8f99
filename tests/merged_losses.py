"""The loss of rows with all options from statistics of parts of the classes, with the arguments of the loss itself."""

from functools import partial, reduce
from itertools import pairwise

from stable_softmax import softmax_statistics


def parts(edges, logits, reference_answers, *, where=None, class_weights=None, **options):
    """Return the statistics of consecutive classes of (examples, classes), between these edges."""
    return [
        softmax_statistics(
            logits[:, first:last],
            reference_answers,
            first_class=first,
            where=where if where is None or where.shape[1] == 1 else where[:, first:last],
            class_weights=None if class_weights is None else class_weights[first:last],
            **options,
        )
        for first, last in pairwise(edges)
    ]


def merged_in_pairs(statistics):
    """Merge the last part with the first one, and so on."""
    while len(statistics) > 1:
        *statistics, last = statistics
        statistics = [*statistics[1:], last.merge(statistics[0])]
    return statistics[0]


def merged_by_collectives(statistics, maximum):
    """Merge as processes do, here one after another: each array goes into the collectives, and their results come."""
    seen = []

    def recorded(array):
        seen.append(array)
        return array

    for part in statistics:
        part.merge_over(recorded, recorded)
    peak = reduce(maximum, seen[::2])
    seen.clear()
    for part in statistics:
        part.merge_over(lambda _: peak, recorded)
    total = sum(seen)
    return statistics[-1].merge_over(lambda _: peak, lambda _: total)


def losses(merge, edges, logits, reference_answers, *, z_loss=0.0, reduction="none", **options):
    """Return the losses of merged parts."""
    merged = merge(parts(edges, logits, reference_answers, **options))
    return merged.crossentropy(z_loss=z_loss, reduction=reduction)


def ways_to_merge(xp):
    """Return ways of merging, by name: functions with the arguments of the loss."""
    return {
        "one part": partial(losses, merged_in_pairs, (0, 12)),
        "parts": partial(losses, merged_in_pairs, (0, 0, 3, 4, 9, 12)),
        "classes": partial(losses, merged_in_pairs, range(13)),
        "processes": partial(losses, partial(merged_by_collectives, maximum=xp.maximum), (0, 4, 7, 12)),
    }


WAYS = ("one part", "parts", "classes", "processes")
CLASSES = 12
