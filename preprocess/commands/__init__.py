"""The commands of stage 1: each checks its options together, calls what it is about, and prints the result."""
