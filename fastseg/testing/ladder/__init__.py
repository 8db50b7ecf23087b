"""The ladder: checks of GPU kernels that need no GPU, and predictions of their times."""
