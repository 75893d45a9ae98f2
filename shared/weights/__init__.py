"""CLIP weights: files of several makers, read without running code, and their identity."""
