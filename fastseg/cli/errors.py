"""What a verb raises when the user has to change something."""

import typer


class UserError(typer.TyperException):
    """A mistake in the call: printed as one line on stderr, exit code 2."""

    exit_code = 2


class NoGpu(typer.TyperException):
    """The verb needs a GPU and there is none: one line on stderr, exit code 3."""

    exit_code = 3


def need_gpu() -> None:
    """Raise `NoGpu` with the reason where torch cannot use a GPU."""
    from fastseg.profiler.gpu import why_none

    if why := why_none():
        raise NoGpu(f"this needs an NVIDIA GPU: {why}")


def reason(error: OSError) -> str:
    """What the system said, without its number and the path."""
    return (error.strerror or str(error)).lower()


class Lacking(typer.TyperException):
    """This machine lacks what the verb needs: one line on stderr, exit code 3."""

    exit_code = 3
