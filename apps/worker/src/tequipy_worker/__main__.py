"""The entry of `tequipy-worker`: says how metrics are kept before anything is imported that keeps some."""

import os
import sys

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client reads it when it is imported, and there decides once how metrics are kept."""


def main() -> None:
    """Run the command line; `run` forks, so its processes count in files, whose folder is named when it is known."""
    if sys.argv[1:2] == ["run"]:
        os.environ[MULTIPROCESS] = "(see tequipy_worker.cli)"
    from tequipy_worker import cli  # noqa: PLC0415 -- see above: it imports everything

    cli.main()


if __name__ == "__main__":
    main()
