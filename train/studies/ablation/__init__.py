"""`python -m train ablate`: the full model, and the model with one part switched off, on the same folds."""
