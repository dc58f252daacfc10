"""The entry point of `tequipy-worker`: decides what is imported, before anything is."""

import gc
import os
import sys

from tequipy_worker import probe
from tequipy_worker.state import MULTIPROCESS


def main() -> None:
    """Run the command line.

    `health` imports nothing else. `run` forks, so it needs metrics in files, which prometheus_client must know when it
    is imported; `cli` sets the real folder later.
    """
    command, arguments = sys.argv[1:2], sys.argv[2:]
    if command == ["health"] and probe.ARGUMENTS.issuperset(arguments):
        probe.main(arguments)
    if command == ["run"]:
        os.environ[MULTIPROCESS] = "(see tequipy_worker.cli)"
    # Modules live as long as the process. Collections during their import would find nothing, but take a quarter of it.
    gc.disable()
    from tequipy_worker import cli  # noqa: PLC0415 -- it imports prometheus_client

    gc.freeze()
    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()
