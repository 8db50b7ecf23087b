"""The table of cases: one module per stem, each with `CASES`. A new module is found without being listed."""
