"""Whole sequences: reading their frames, estimating their apex."""
