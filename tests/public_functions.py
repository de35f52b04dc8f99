"""Every public function with given options, for tests of what the results are made of: place, shape and dtype."""

import numpy as np
from loss_options import moderate_case

import stable_softmax
from stable_softmax import textbook

NORMALIZATIONS = ("softmax", "log_softmax", "log_softmax_complement", "logsumexp")
LOSSES = tuple(
    f"{kind}softmax_crossentropy_with_logits" for kind in ("", "grad_", "value_and_grad_", "hvp_", "hessian_diagonal_")
)
COMPARISONS = tuple(
    f"{kind}softmax_{name}"
    for name in ("entropy", "kl_divergence", "js_divergence")
    for kind in ("", "grad_", "value_and_grad_")
)
LINEAR = ("linear_softmax_crossentropy", "value_and_grad_linear_softmax_crossentropy")
LINEAR_COMPARISONS = tuple(
    f"{kind}linear_softmax_{name}" for name in ("entropy", "kl_divergence") for kind in ("", "value_and_grad_")
)
TEXTBOOK = [name for name in vars(textbook) if name.startswith(("unstable_", "shifted_", "crossentropy_via_"))]


def every_result(names, convert, count=12):
    """Yield the name of each public function, and a list of its results for arrays that are made of NumPy's.

    `names` are those of options of the loss; without any, the textbook's formulas are called, too. Statistics are not
    called with target probabilities.
    """
    case = moderate_case(names, count)
    differentiable, rest = case.arguments(convert)
    options = differentiable | rest
    z, y = options.pop("logits"), options.pop("reference_answers")
    where = options.get("where")
    vector, weight, bias = convert(case.logits[::-1].copy()), convert(np.eye(4) * 2 + 0.5), convert(np.arange(4.0))
    for name in NORMALIZATIONS:
        function = getattr(stable_softmax, name)
        for given in ({}, {"axis": 0}, {"axis": None}, {"dtype": "float32"}):
            yield f"{name} {given}", flat(function(z, where=where, **given))
    for weights in (None, convert(np.asarray([1.0, -2, 0, 3]))):
        given = {"weights": weights, "where": where}
        yield "weighted logsumexp", flat(stable_softmax.logsumexp(z, **given, return_sign=True))
    for name in COMPARISONS:
        compared = (z,) if name.endswith("entropy") else (z, vector)
        for given in ({}, {"dtype": "float32"}):
            for reduction in ("none", "mean"):
                result = getattr(stable_softmax, name)(*compared, where=where, reduction=reduction, **given)
                yield f"{name} {reduction} {given}", flat(result)
    for reduction in ("none", "mean", "sum"):
        for name in LOSSES:
            vectors = (vector,) if name.startswith("hvp") else ()
            result = getattr(stable_softmax, name)(z, y, *vectors, reduction=reduction, **options)
            yield f"{name} {reduction}", flat(result)
        for name in LINEAR:
            for more in ({}, {"softcap": 5.0, "block_size": 5}):
                result = getattr(stable_softmax, name)(z, weight, y, bias, reduction=reduction, **more, **options)
                yield f"{name} {reduction} {more}", flat(result)
    for name in LINEAR_COMPARISONS:
        for given in ({}, {"softcap": 5.0, "block_size": 5}):
            two = (z, weight) if "kl" in name else ()
            result = getattr(stable_softmax, name)(vector, weight, *two, bias, where=where, **given)
            yield f"{name} {given}", flat(result)
    if "probabilities" not in names:
        masks = {name: options[name] for name in ("where", "ignore_index") if name in options}
        yield "linear_softmax_summary", flat(stable_softmax.linear_softmax_summary(z, weight, y, bias, **masks))
        yield from of_statistics(z, y, convert, **options)
    if names:
        return
    for name in TEXTBOOK:
        yield name, flat(getattr(textbook, name)(z, *((y,) if "softmax" not in name else ())))


def of_statistics(z, y, convert, where=None, class_weights=None, z_loss=0.0, **options):
    """Yield results of statistics, merged from two parts, with the options of the loss."""
    statistics = stable_softmax.softmax_statistics

    def part(classes, first_class):
        mask = None if where is None else where[:, classes]
        weights = None if class_weights is None else class_weights[classes]
        return statistics(z[:, classes], y, first_class=first_class, where=mask, class_weights=weights, **options)

    for first_class in (2, convert(np.asarray(2))):
        merged = part(slice(0, 2), 0).merge(part(slice(2, None), first_class))
        yield "statistics", flat((*merged, merged.logsumexp(), merged.crossentropy(z_loss=z_loss)))
        yield "statistics, mean", [merged.crossentropy(z_loss=z_loss, reduction="mean")]
    yield "statistics without answers", flat(tuple(statistics(z, axis=0, where=where)))


def flat(results):
    """Return the arrays of nested tuples and dicts, without None."""
    if isinstance(results, dict):
        results = tuple(results.values())
    if isinstance(results, tuple):
        return [array for result in results if result is not None for array in flat(result)]
    return [results]
