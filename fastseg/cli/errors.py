"""What a verb raises when the user has to change something."""

import typer


class UserError(typer.TyperException):
    """A mistake in the call: printed as one line on stderr, exit code 2."""

    exit_code = 2


def reason(error: OSError) -> str:
    """What the system said, without its number and the path."""
    return (error.strerror or str(error)).lower()
