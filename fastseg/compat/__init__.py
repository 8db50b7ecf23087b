"""Other libraries' interfaces over the operations of fastseg: scripts change an import line."""
