"""A language model in JAX and in PyTorch, with a head that never holds all logits, and with one that makes them.

The text is that of Python's own help pages, `help("FORMATTING")` among them. Its tokens are groups of three
characters: thousands of classes, so that the logits of a batch are by far its largest array. The model is that of
Bengio et al., "A neural probabilistic language model" (2003), small: the embeddings of the last tokens, a hidden layer,
and the head, which projects to all classes. Some tokens at a time, that is `linear_softmax_crossentropy`. Both heads
serve both libraries, and all runs start from the same weights and see the same batches.
"""

import math
import statistics
import time
from collections import Counter
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from stable_softmax import linear_softmax_crossentropy, softmax_crossentropy_with_logits

CHARACTERS, CLASSES, CONTEXT, FEATURES = 3, 8192, 2, 128
STEPS, SEQUENCES, LENGTH, LEARNING_RATE = 30, 64, 32, 0.02
PADDING = -100
# In float32, heads and libraries round differently, and Adam passes that on from step to step.
TOLERANCE = 1e-4
# On Linux, writing 5 here sets the peak of the process's memory to what is resident now.
CLEAR_REFS = Path("/proc/self/clear_refs")
HEADS = {
    "some tokens at a time": partial(linear_softmax_crossentropy, ignore_index=PADDING),
    "all tokens at once": lambda features, weight, labels: softmax_crossentropy_with_logits(
        features @ weight.T, labels, ignore_index=PADDING, reduction="mean"
    ),
}


def shuffled_paragraphs():
    """Return all different paragraphs of the help pages, each as a list of tokens."""
    paragraphs = list(dict.fromkeys(text for name in sorted(topics) for text in topics[name].split("\n\n")))
    np.random.default_rng(0).shuffle(paragraphs)
    return [[text[at : at + CHARACTERS] for at in range(0, len(text), CHARACTERS)] for text in paragraphs]


def batches_of(paragraphs, class_ids, count):
    """Return contexts (count, sequences, length, context) and labels (count, sequences, length).

    Paragraphs are cut where a sequence is full, and sequences padded at their end. Each token is the label of those
    before it. Class 0 stands for tokens that have no class of their own, and for all outside a sequence.
    """
    sequences = [tokens[at : at + LENGTH] for tokens in paragraphs for at in range(0, len(tokens), LENGTH)]
    labels = np.full((count * SEQUENCES, LENGTH), PADDING, np.int32)
    for row, sequence in zip(labels, sequences, strict=False):
        row[: len(sequence)] = [class_ids.get(token, 0) for token in sequence]
    earlier = np.pad(np.maximum(labels[:, :-1], 0), ((0, 0), (CONTEXT, 0)))
    contexts = np.lib.stride_tricks.sliding_window_view(earlier, CONTEXT, axis=1)
    return contexts.reshape(count, SEQUENCES, LENGTH, CONTEXT), labels.reshape(count, SEQUENCES, LENGTH)


def initial_parameters():
    """Draw the weights, as NumPy arrays. The head's are small: the first predictions are almost uniform."""
    generator = np.random.default_rng(0)
    shapes = {"embedding": (CLASSES, FEATURES), "hidden": (CONTEXT * FEATURES, FEATURES), "head": (CLASSES, FEATURES)}
    scales = {"embedding": 0.5, "hidden": (CONTEXT * FEATURES) ** -0.5, "head": 0.01}
    return {name: generator.normal(0, scales[name], shape).astype("float32") for name, shape in shapes.items()}


def features_of(xp, parameters, contexts):
    """Apply all but the head, with either library."""
    embedded = parameters["embedding"][contexts].reshape(*contexts.shape[:-1], -1)
    return xp.tanh(embedded @ parameters["hidden"])


def trained_by_jax(head, batches, held_out):
    """Train in JAX; return the held-out loss before and after, all training losses, and a step's median seconds."""
    optimizer = optax.adam(LEARNING_RATE)

    @jax.jit
    def loss_of(parameters, contexts, labels):
        return head(features_of(jnp, parameters, contexts), parameters["head"], labels)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(parameters, state, contexts, labels):
        loss, gradient = jax.value_and_grad(loss_of)(parameters, contexts, labels)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(parameters, updates), state, loss

    parameters = jax.tree.map(jnp.asarray, initial_parameters())
    state = optimizer.init(parameters)
    before, losses, seconds = loss_of(parameters, *held_out).item(), [], []
    for contexts, labels in zip(*map(jnp.asarray, batches), strict=True):
        start = time.perf_counter()
        parameters, state, loss = step(parameters, state, contexts, labels)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    return before, loss_of(parameters, *held_out).item(), losses, statistics.median(seconds)


def trained_by_torch(head, batches, held_out):
    """Train in PyTorch; return the held-out loss before and after, all training losses, and a step's median seconds."""
    parameters = {name: torch.tensor(array, requires_grad=True) for name, array in initial_parameters().items()}
    optimizer = torch.optim.Adam(parameters.values(), lr=LEARNING_RATE)

    def loss_of(contexts, labels):
        return head(features_of(torch, parameters, contexts), parameters["head"], labels)

    def step(contexts, labels):
        optimizer.zero_grad()
        loss = loss_of(contexts, labels)
        loss.backward()
        optimizer.step()
        return loss

    held_out = [torch.tensor(array) for array in held_out]
    held_out_loss = torch.no_grad()(loss_of)
    before, losses, seconds = held_out_loss(*held_out).item(), [], []
    for contexts, labels in zip(*map(torch.tensor, batches), strict=True):
        start = time.perf_counter()
        losses.append(step(contexts, labels).item())
        seconds.append(time.perf_counter() - start)
    return before, held_out_loss(*held_out).item(), losses, statistics.median(seconds)


def arguments_of_head(sequences):
    """Return features, weight and labels for a head, as NumPy arrays."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(sequences, LENGTH, FEATURES)).astype("float32")
    return features, initial_parameters()["head"], generator.integers(CLASSES, size=(sequences, LENGTH))


def planned_by_jax(head):
    """Return, in MiB, the temporary memory that the compiler plans for a head with its gradients."""
    compiled = jax.jit(jax.value_and_grad(head, argnums=(0, 1))).lower(*arguments_of_head(SEQUENCES)).compile()
    return f"{compiled.memory_analysis().temp_size_in_bytes / 2**20:.0f}"


def measured_with_torch(head):
    """Return, in MiB, by how much a head with its gradients raises the memory of the process; a dash if unknown."""
    if not CLEAR_REFS.exists():
        return "-"
    # Few sequences first, for all that a process does once.
    for sequences in (1, SEQUENCES):
        features, weight, labels = map(torch.tensor, arguments_of_head(sequences))
        CLEAR_REFS.write_text("5")
        before = resident("VmRSS")
        head(features.requires_grad_(), weight.requires_grad_(), labels).backward()
    return f"{resident('VmHWM') - before:.0f}"


def resident(name):
    """Return an entry of the process's status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 2**10


def main():
    """Train with both heads in both libraries, and compare."""
    # Several threads may mostly wait for each other, where something else runs at the same time.
    torch.set_num_threads(1)
    # Before all else: later, a head could take what the process keeps of the memory it had.
    measured = {head: measured_with_torch(loss) for head, loss in HEADS.items()}
    planned = {head: planned_by_jax(loss) for head, loss in HEADS.items()}
    paragraphs = shuffled_paragraphs()
    held_out, train = paragraphs[: len(paragraphs) // 10], paragraphs[len(paragraphs) // 10 :]
    counts = Counter(token for tokens in train for token in tokens)
    class_ids = {token: number for number, (token, _) in enumerate(counts.most_common(CLASSES - 1), start=1)}
    batches = batches_of(train, class_ids, STEPS)
    held_out = [array[0] for array in batches_of(held_out, class_ids, 1)]
    print(f"{len(counts):,} different tokens, {CLASSES:,} classes: a uniform prediction costs {math.log(CLASSES):.4f}")
    print(f"{STEPS} steps of {SEQUENCES * LENGTH:,} tokens, {np.mean(batches[1] == PADDING):.0%} of them padding")
    print("Memory of the head with its gradients: planned by the compiler of JAX, measured with PyTorch\n")
    print("library  head                   held-out loss: before   after  ms per step  head, MiB")
    curves = []
    for library, trained, memory in (("JAX", trained_by_jax, planned), ("PyTorch", trained_by_torch, measured)):
        for head, loss in HEADS.items():
            before, after, losses, seconds = trained(loss, batches, held_out)
            row = f"{library:8} {head:22} {before:21.4f} {after:7.4f}"
            print(f"{row} {1000 * seconds:12.0f} {memory[head]:>10}")
            assert after < 0.75 * math.log(CLASSES)
            curves.append(losses)
    difference = np.max(np.ptp(curves, axis=0) / np.min(curves, axis=0))
    print(f"\nTraining loss, each fifth step: {np.round(curves[0][::5], 4)}; all runs agree to {difference:.0e}")
    assert difference < TOLERANCE


if __name__ == "__main__":
    main()
