"""A program that is killed again and again: imported once, and forked for each of its lives."""

import ctypes
import os
import signal
from math import inf

_PR_SET_PDEATHSIG = 1  # prctl(2)


def fork_for_each_life(deaths: float = inf) -> bool:
    """Return True in a child, which is replaced by another whenever it is killed.

    Return False in this process when that has happened `deaths` times. SIGTERM meanwhile ends both.
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
