"""A PyTorch training loop: a two-layer network learns scikit-learn's handwritten digits twice.

Between the two runs, one line differs: the loss. Both learn the same; but whoever ranks the examples by their losses
afterwards, to prune, replay or mistrust some of them, finds that most of PyTorch's are equal.
"""

from functools import partial

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from stable_softmax import softmax_crossentropy_with_logits

LOSSES = {
    "stable-softmax": softmax_crossentropy_with_logits,
    "PyTorch": partial(torch.nn.functional.cross_entropy, reduction="none"),
}
HIDDEN, CLASSES, STEPS = 64, 10, 3000
torch.set_num_threads(1)  # layers of this size take longer on more

images, digits = load_digits(return_X_y=True)
train_images, test_images, train_digits, test_digits = map(
    torch.asarray,
    train_test_split((images / 16).astype("float32"), digits, test_size=297, random_state=0, stratify=digits),
)


def trained(crossentropy):
    """Return the network after training with a loss function of logits and class ids."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(images.shape[1], HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, CLASSES)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(STEPS):
        optimizer.zero_grad()
        crossentropy(network(train_images), train_digits).mean().backward()
        optimizer.step()
    return network


def main():
    """Train with both losses and compare."""
    for name, crossentropy in LOSSES.items():
        network = trained(crossentropy)
        with torch.no_grad():
            losses = crossentropy(network(train_images), train_digits)
            accuracy = (network(test_images).argmax(dim=1) == test_digits).double().mean().item()
        print(
            f"{name}: mean loss {losses.mean():.1e}; {len(losses.unique())} different losses of {len(losses)}, "
            f"{(losses == 0).sum()} are 0; held-out accuracy {accuracy:.4f}"
        )
        assert accuracy > 0.94


if __name__ == "__main__":
    main()
