"""Calls beyond 32 bits, a module for each stem, with `LIMITS`."""
