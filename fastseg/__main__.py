"""`python -m fastseg` is the `fastseg` command."""

from fastseg.cli.main import main

if __name__ == "__main__":
    main()
