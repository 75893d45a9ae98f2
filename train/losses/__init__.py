"""The terms of the training loss, one file each."""
