"""From a cache to batches on the device: items, order, reading ahead, augmentation, embeddings."""
