"""Logits as the projection of features, and gradients pulled back through it.

Features are (rows, D), the weight is (C, D) and the bias (C,), or None.
"""

from types import ModuleType
from typing import Any

from stable_softmax._libraries._differentiable import Differentiable
from stable_softmax._libraries._operations import added, contracted
from stable_softmax._maths._conversion import converted
from stable_softmax._maths._sums import accurate_sum


def projected(xp: ModuleType, features: Any, weight: Any, bias: Any, dtype: Any) -> Any:
    """Return `features @ weight.T + bias`."""
    product = contracted(xp, features, weight, (1, 1), dtype)
    return product if bias is None else product + converted(xp, bias, dtype)


def pulled_back(
    xp: ModuleType, gradient: Any, features: Any, weight: Any, has_bias: bool, sums: Any
) -> tuple[Any, list[Any]]:
    """Return the gradients with respect to features, and to weight and bias, if there is one, from that to the logits.

    The latter are added to sums, unless these are None.
    """
    total, *rest = sums or (None,)
    of_features = contracted(xp, gradient, weight, (1, 0), gradient.dtype, features)
    gradients = [contracted(xp, gradient, features, (0, 0), gradient.dtype, weight, total)]
    if has_bias:
        gradients.append(added(xp, rest[0] if rest else None, accurate_sum(xp, gradient, (0,))[0, :]))
    return of_features, gradients


def slope_of_cap(xp: ModuleType, projection: Any, softcap: float) -> Any:
    """Return the derivative of `capped`, `1 - tanh(z / softcap)**2`, with all digits also where that is nearly 0."""
    smaller = xp.exp(-2 * xp.abs(projection / softcap))
    return 4 * smaller / (1 + smaller) ** 2


def of_counted(xp: ModuleType, features: Any, counted: Any) -> Any:
    """Return features with 0 for those of examples that do not count, whose NaN would come through products with 0."""
    return features if counted is None else xp.where(counted, features, 0)


def without_excluded(xp: ModuleType, rows: Any, where: Any) -> Any:
    """Return what classes have, with 0 for those that no example leaves."""
    left = xp.any(where, axis=0)
    return xp.where(xp.reshape(left, (-1,) + (1,) * (rows.ndim - 1)), rows, 0)


def _capped(xp: ModuleType, projection: Any, softcap: float) -> Any:
    return softcap * xp.tanh(projection / softcap)


def _capped_jvp(xp: ModuleType, vector: Any, projection: Any, softcap: float) -> tuple[Any, Any]:
    return capped(xp, projection, softcap=softcap), _capped_vjp(xp, vector, projection, softcap)


def _capped_vjp(xp: ModuleType, cotangent: Any, projection: Any, softcap: float) -> Any:
    return cotangent * slope_of_cap(xp, projection, softcap)


#: `softcap * tanh(z / softcap)`
capped = Differentiable(_capped, _capped_jvp, _capped_vjp)
