"""A program that is killed repeatedly: imported once, and forked for each run."""

import ctypes
import os
import signal
from math import inf

_PR_SET_PDEATHSIG = 1  # prctl(2)


def fork_for_each_run(deaths: float = inf) -> bool:
    """Return True in a child process, which is replaced by a new one whenever it is killed.

    Return False in this process after `deaths` deaths. SIGTERM ends both processes.
    """
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    while deaths > 0:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            return True
        _, status = os.waitpid(child, 0)
        deaths -= os.WIFSIGNALED(status)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return False
