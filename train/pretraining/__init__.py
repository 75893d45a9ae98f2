"""`train pretrain`: contrastive image-text training of an image tower and its text tower on captioned caches."""
