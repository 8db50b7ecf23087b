"""What a verb raises when the user has to change something."""

from pathlib import Path

import typer


class UserError(typer.TyperException):
    """A mistake in the call: printed as one line on stderr, exit code 2."""

    exit_code = 2


class Lacking(typer.TyperException):
    """This machine lacks what the verb needs, a GPU or a compiler: one line on stderr, exit code 3."""

    exit_code = 3


def need_gpu() -> None:
    """Raise `Lacking` with the reason where torch cannot use a GPU."""
    from fastseg.profiler.gpu import why_none

    if why := why_none():
        raise Lacking(f"this needs an NVIDIA GPU: {why}")


def reason(error: OSError) -> str:
    """What the system said, without its number and the path."""
    return (error.strerror or str(error)).lower()


def checked_file(option: str, path: Path) -> Path:
    """A path that a file can be written to."""
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{option} must be a file in a folder that exists, got {path}")
    return path
