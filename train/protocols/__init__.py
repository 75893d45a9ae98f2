"""Who trains and who is tested: named protocols, folds, selection of items, leakage checks."""
