"""The `fastseg` command: one file per verb."""
