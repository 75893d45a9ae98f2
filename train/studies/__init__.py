"""Many runs at once: cross-validation, ablation, comparison."""
