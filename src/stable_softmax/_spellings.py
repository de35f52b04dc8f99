"""What other libraries call the functions of this one."""

_LOSS = "softmax_crossentropy_with_logits"
#: Names of PyTorch, Optax, TensorFlow, Keras, SciPy and their dialects that differ in more than an underscore.
_NAMES = {
    "cross_entropy": _LOSS,
    "cross_entropy_loss": _LOSS,
    "cross_entropy_with_logits": _LOSS,
    "softmax_cross_entropy": _LOSS,
    "softmax_cross_entropy_with_integer_labels": _LOSS,
    "sparse_softmax_cross_entropy_with_logits": _LOSS,
    "safe_softmax_cross_entropy": _LOSS,
    "categorical_crossentropy": _LOSS,
    "sparse_categorical_crossentropy": _LOSS,
    "CrossEntropyLoss": _LOSS,
    "linear_cross_entropy": "linear_softmax_crossentropy",
    "fused_linear_cross_entropy": "linear_softmax_crossentropy",
    "kl_div": "softmax_kl_divergence",
    "kl_divergence": "softmax_kl_divergence",
    "rel_entr": "softmax_kl_divergence",
    "js_div": "softmax_js_divergence",
    "js_divergence": "softmax_js_divergence",
    "jensenshannon": "softmax_js_divergence",
    "entropy": "softmax_entropy",
    "set_num_threads": "set_workers",
    "get_num_threads": "get_workers",
}


def own_name(name: str, public: list[str]) -> str | None:
    """Return the public name that is meant by one of another library; None if it is unknown."""
    if name in _NAMES:
        return _NAMES[name]
    plain = {_without_underscores(own): own for own in public}
    return plain.get(_without_underscores(name))


def _without_underscores(name: str) -> str:
    return name.lower().replace("_", "")
