"""The audit: what the usual form of the loss makes of a model's own logits."""
