"""What the floors above share: shapes, what logits are compared with, what is computed of them."""
