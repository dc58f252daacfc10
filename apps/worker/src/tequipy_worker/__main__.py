"""The entry point of `tequipy-worker`: chooses prometheus_client's mode before the library is imported."""

import os
import sys

from tequipy_worker.state import MULTIPROCESS


def main() -> None:
    """Run the command line. `run` forks, so it needs metrics in files; `cli` sets the real folder later."""
    if sys.argv[1:2] == ["run"]:
        os.environ[MULTIPROCESS] = "(see tequipy_worker.cli)"
    from tequipy_worker import cli  # noqa: PLC0415 -- it imports prometheus_client

    cli.main()


if __name__ == "__main__":
    main()
