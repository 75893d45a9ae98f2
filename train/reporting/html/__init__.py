"""Runs and cross-validations as one HTML file."""
