"""The truth: every op in plain PyTorch, any dtype, differentiable, slow on purpose."""
