"""Training one fold: the loop, the step, the optimizer, checkpoints, logs."""
