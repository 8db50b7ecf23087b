"""What a user writes without fastseg: one module per stem, with `PLAIN` (PyTorch) and `LIBRARIES` (others) by op."""
