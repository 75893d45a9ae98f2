"""All folds and rounds of a protocol at once, as one batched model."""
