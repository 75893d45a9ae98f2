"""Kinds of labels: one class of several, or several at once; their scores."""
