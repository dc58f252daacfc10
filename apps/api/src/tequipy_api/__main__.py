"""The entry point of `tequipy-api`: decides what is imported, before anything is."""

import sys

from tequipy_api import probe


def main() -> None:
    """Run the command line; `health` imports nothing else."""
    command, arguments = sys.argv[1:2], sys.argv[2:]
    if command == ["health"] and probe.is_probe(arguments):
        probe.main(arguments)
    from tequipy_api import cli  # noqa: PLC0415 -- it imports the app's settings

    cli.main()


if __name__ == "__main__":
    main()
