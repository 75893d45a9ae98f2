"""Files of a run folder: its results, the scores of groups, and the check of all files against their hashes."""
