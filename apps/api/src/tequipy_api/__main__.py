"""The entry point of `tequipy-api`: decides what is imported, before anything is."""

import gc
import sys

from tequipy_api import probe


def main() -> None:
    """Run the command line; `health` imports nothing else."""
    command, arguments = sys.argv[1:2], sys.argv[2:]
    if command == ["health"] and probe.is_probe(arguments):
        probe.main(arguments)
    # Modules live as long as the process. Collections during their import would find nothing, but take a quarter of it.
    gc.disable()
    from tequipy_api import cli  # noqa: PLC0415 -- it imports the app's settings

    gc.freeze()
    gc.enable()
    cli.main()


if __name__ == "__main__":
    main()
