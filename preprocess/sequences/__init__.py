"""Whole sequences: apex estimates and dynamic images."""
