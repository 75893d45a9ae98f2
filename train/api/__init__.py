"""What `train` offers to Python programs; see the examples in train/README.md."""
