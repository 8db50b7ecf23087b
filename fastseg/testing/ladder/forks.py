"""Work that may crash, each piece in a fork of this process."""

import json
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator

PROCESSES = 2
HARNESS = "harness"


def forked(work: Iterable[tuple[int, Callable[[], tuple[str, str]], float]]) -> Iterator[tuple[int, str, str]]:
    """Do each piece of work in a fork of this process, which must have one thread: number, how and why it went red.

    Time is that of the processor, so that a busy machine kills nothing.
    """
    waiting: dict[int, tuple[int, int]] = {}

    def reap() -> tuple[int, str, str]:
        pid, status = os.wait()
        number, pipe = waiting.pop(pid)
        with os.fdopen(pipe) as said:
            text = said.read()
        if text:
            how, why = json.loads(text)
            if how == HARNESS:
                raise RuntimeError(f"fastseg::forks: work {number} must return, got {why}")
            return number, how, why
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return number, "", ""
        if -code == signal.SIGKILL:  # no limit of ours: the machine ran out of memory
            raise RuntimeError(f"fastseg::forks: work {number} must not be killed from outside, got SIGKILL")
        return number, "time" if -code == signal.SIGXCPU else "crash", f"exit code {code}"

    for number, task, seconds in work:
        if len(waiting) == PROCESSES:
            yield reap()
        readable, writable = os.pipe()
        if pid := os.fork():
            os.close(writable)
            waiting[pid] = number, readable
        else:
            _child(task, writable, seconds)
    while waiting:
        yield reap()


def _child(task: Callable[[], tuple[str, str]], pipe: int, seconds: float) -> None:
    """Never returns."""
    limit = int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        how, why = task()
    except BaseException as error:  # of ours: what a mutant does is a verdict of the task
        how, why = HARNESS, f"{type(error).__name__}: {error}"
    if how:
        os.write(pipe, json.dumps((how, why[:500])).encode())
    os._exit(0)
