"""Methods side by side on the same test samples: scores over seeds, intervals, and whether a difference is chance."""
