"""The comparison: how far apart the predictions of two models are, by their logits."""
