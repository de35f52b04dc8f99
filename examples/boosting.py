"""Gradient boosting on scikit-learn's handwritten digits: our derivatives as objectives of XGBoost and LightGBM.

Both ask a custom objective for the gradient and the curvature of the loss at every score, in arrays (examples,
classes). The gradient is always ours; the curvature is the diagonal of our Hessian, or what the libraries' own
objectives put in its place. Then LightGBM learns target probabilities: the votes of several annotators.
"""

import lightgbm
import numpy as np
import xgboost
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from stable_softmax import (
    grad_softmax_crossentropy_with_logits,
    hessian_diagonal_softmax_crossentropy_with_logits,
    softmax,
    softmax_crossentropy_with_logits,
)

CLASSES, ROUNDS, ANNOTATORS = 10, 300, 5
# Their own objectives: XGBoost 3.2 doubles the diagonal, and its pull request 12537 takes |gradient| in its place.
# LightGBM 4.7 multiplies the diagonal by K / (K - 1), with K classes.
CURVATURES = {
    "diagonal": lambda _, diagonal: diagonal,
    "diagonal * 10/9": lambda _, diagonal: diagonal * (CLASSES / (CLASSES - 1)),
    "diagonal * 2": lambda _, diagonal: diagonal * 2,
    "|gradient|": lambda gradient, _: np.abs(gradient),
}
# Little regularization, so that training becomes confident. Scores start equal, as for a custom objective.
COMMON = {"num_class": CLASSES, "learning_rate": 0.3, "reg_lambda": 0.01, "min_child_weight": 1e-3}
XGBOOST = {**COMMON, "objective": "multi:softprob", "base_score": 0.5, "max_depth": 4, "nthread": 1}
LIGHTGBM = {**COMMON, "boost_from_average": False, "num_leaves": 15, "num_threads": 1, "verbosity": -1}

images, digits = load_digits(return_X_y=True)
train, test = train_test_split(np.arange(len(digits)), test_size=0.3, random_state=0, stratify=digits)


def objective_of(reference_answers, curvature=CURVATURES["diagonal"]):
    """Return a custom objective for class ids or target probabilities."""

    def objective(logits, _):
        gradient = grad_softmax_crossentropy_with_logits(logits, reference_answers, reduction="none")
        diagonal = hessian_diagonal_softmax_crossentropy_with_logits(logits, reference_answers, reduction="none")
        return gradient, curvature(gradient, diagonal)

    return objective


def vanished(logits, dtype):
    """Return in how many entries the usual ``p * (1 - p)`` is 0 in a dtype, although the diagonal is not.

    XGBoost's scores are float32, those of LightGBM float64.
    """
    logits = logits.astype(dtype)
    exponentials = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    probabilities = exponentials / np.sum(exponentials, axis=1, keepdims=True)
    diagonal = hessian_diagonal_softmax_crossentropy_with_logits(logits, digits[train], reduction="none")
    return np.count_nonzero((probabilities * (1 - probabilities) == 0) & (diagonal > 0))


def counted(objective, counts):
    """Return the objective, which now appends to a list what vanishes in float32 and in float64 in each round."""

    def counting_objective(logits, data):
        counts.append([vanished(logits, "float32"), vanished(logits, "float64")])
        return objective(logits, data)

    return counting_objective


def xgboost_logits(objective=None):
    """Return the held-out logits after training with a custom objective, or else with `multi:softprob`.

    A custom objective gets raw scores, although the parameters name `multi:softprob` all the same.
    """
    booster = xgboost.train(XGBOOST, xgboost.DMatrix(images[train], digits[train]), ROUNDS, obj=objective)
    return booster.predict(xgboost.DMatrix(images[test]), output_margin=True)


def lightgbm_logits(objective="multiclass", class_ids=digits, rounds=ROUNDS, **options):
    """Return the held-out logits after training. The class ids are for LightGBM's own objectives."""
    data = lightgbm.Dataset(images[train], class_ids[train])
    booster = lightgbm.train({**LIGHTGBM, **options, "objective": objective}, data, rounds)
    return booster.predict(images[test], raw_score=True)


def loss(logits, reference_answers):
    """Return the mean cross-entropy of the held-out images."""
    return softmax_crossentropy_with_logits(logits, reference_answers[test], reduction="mean")


def accuracy(logits):
    """Return the share of the held-out digits that are recognized."""
    return np.mean(np.argmax(logits, axis=1) == digits[test])


def compare_curvatures():
    """Train both libraries with each curvature and with their own objectives."""
    entries = ROUNDS * len(train) * CLASSES
    print(f"Zeros: where the usual p * (1 - p) is 0, but not the diagonal, of {entries:,} entries in {ROUNDS} rounds\n")
    print("library   curvature        held-out loss  accuracy   zeros in float32   in float64")
    for library, logits_of, own in [
        ("XGBoost", xgboost_logits, "multi:softprob"),
        ("LightGBM", lightgbm_logits, "multiclass"),
    ]:
        for name, curvature in CURVATURES.items():
            counts = []
            logits = logits_of(counted(objective_of(digits[train], curvature), counts))
            single, double = np.sum(counts, axis=0)
            row = f"{library:9} {name:16} {loss(logits, digits):13.4f} {accuracy(logits):9.4f}"
            print(f"{row} {single:9,} ({single / entries:.2%}) {double:12,}")
            assert accuracy(logits) > 0.93
            assert single > 0
        logits = logits_of()
        print(f"{library:9} {own:16} {loss(logits, digits):13.4f} {accuracy(logits):9.4f}")
        assert accuracy(logits) > 0.93


def simulated_annotators(generator):
    """Return the logits of an annotator's answers, and how many of the annotators gave each answer.

    They mostly know the digit, and take it for another one the more often, the nearer that one's mean image is.
    """
    means = np.stack([np.mean(images[digits == digit], axis=0) for digit in range(CLASSES)])
    squared_distances = np.sum((images[:, np.newaxis] - means) ** 2, axis=2)
    logits = 2 * np.eye(CLASSES)[digits] - squared_distances / 200
    return logits, generator.multinomial(ANNOTATORS, softmax(logits, axis=1))


def compare_labels():
    """Train LightGBM on all votes of the annotators, and on the majority's, where chance decides ties."""
    generator = np.random.default_rng(0)
    annotator_logits, votes = simulated_annotators(generator)
    probabilities = softmax(annotator_logits, axis=1)
    majority = np.argmax(votes + generator.random(votes.shape), axis=1)
    training = {"class_ids": majority, "rounds": 40, "learning_rate": 0.1}
    logits_of_votes = lightgbm_logits(objective_of(votes[train] / ANNOTATORS), **training)
    logits_of_majority = lightgbm_logits(**training)
    print(f"\nVotes of {ANNOTATORS} simulated annotators; the loss is held against the probabilities they draw from\n")
    print("LightGBM trained on               held-out loss  accuracy on the digits")
    for name, logits in [
        ("all votes, custom objective", logits_of_votes),
        ("the majority's vote, multiclass", logits_of_majority),
        ("(the annotators themselves)", annotator_logits[test]),
    ]:
        print(f"{name:33} {loss(logits, probabilities):13.4f} {accuracy(logits):23.4f}")
    assert loss(logits_of_votes, probabilities) < loss(logits_of_majority, probabilities)
    assert min(accuracy(logits_of_votes), accuracy(logits_of_majority)) > 0.9


def main():
    """Compare the curvatures, then the labels."""
    compare_curvatures()
    compare_labels()


if __name__ == "__main__":
    main()
