"""`tequipy-worker health`: whether the processes of this state folder work, by their heartbeats.

It imports the standard library only (python-dotenv too, if there is a `.env`), because a probe runs every few seconds.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from tequipy_worker.state import (
    DEFAULT_NAME,
    KINDS,
    READY,
    SETTING,
    children_folder,
    heartbeat_file,
    is_locked,
)

ALIVE_WITHIN: Final = 30.0
"""Seconds after which a process without a heartbeat counts as hanging."""
READY_OPTION: Final = "--ready"
ARGUMENTS: Final = frozenset({*KINDS, READY_OPTION})


def main(arguments: Sequence[str]) -> NoReturn:
    """End the process with status 0 if all processes work, and with 1 and one line per fault otherwise."""
    ready, kinds = READY_OPTION in arguments, [kind for kind in arguments if kind in KINDS]
    faults = list(find_faults(state_folder(), kinds, ready=ready))
    sys.stderr.writelines(f"{fault}\n" for fault in faults)
    sys.exit(1 if faults else 0)


def find_faults(folder: Path, kinds: Sequence[str] = (), *, ready: bool = False) -> Iterator[str]:
    """Yield what is wrong with the processes of a state folder: those of the given kinds, or all that run.

    With `ready`, a process that waits for broker or database is wrong too.
    """
    running = [kind for kind in KINDS if is_locked(folder / kind / "lock")]
    if not running and not kinds:
        yield f"no process runs in {folder}"
    for kind in kinds or running:
        if kind not in running:
            yield f"{kind}: does not run in {folder}"
        else:
            yield from _faults_of(folder / kind, kind, ready=ready)


def _faults_of(folder: Path, kind: str, *, ready: bool) -> Iterator[str]:
    heartbeat = heartbeat_file(folder)
    if not _is_alive(heartbeat):
        yield f"{kind}: has not touched {heartbeat} lately"
    elif ready and (text := _text(heartbeat)) != READY:
        yield f"{kind}: {text}"
    if kind != "run":
        return
    children = children_folder(folder)
    files = sorted(children.glob("[0-9]*"))
    living = [file for file in files if is_locked(file)]
    # Without a living child one is being started: by the file of the last one, or the folder, it cannot be late yet.
    if not any(_is_alive(path) for path in living or [*files, children]):
        yield f"{kind}: no child process has touched its file in {children} lately"
    elif ready and READY not in (texts := {_text(file) for file in living if _is_alive(file)}):
        yield f"{kind}: its child processes: {'; '.join(sorted(texts)) or 'none has started'}"


def _is_alive(file: Path) -> bool:
    """Return whether the file was touched recently; a time in the future, after a clock correction, does not count."""
    try:
        return abs(time.time() - file.stat().st_mtime) < ALIVE_WITHIN
    except FileNotFoundError:
        return False


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def state_folder() -> Path:
    """Return the state folder of the settings, read as `WorkerSettings` reads it, from the environment and `.env`.

    Ends the process with status 78 and one line if it cannot be determined. Other settings are not checked.
    """
    for variables in (os.environ, _env_file()):
        found = _setting(variables)
        if found:
            return Path(found)
    return Path(tempfile.gettempdir()) / DEFAULT_NAME


def _setting(variables: Mapping[str, str | None]) -> str | None:
    """Return the value of the setting, alone or in the JSON object of its section; names have any case."""
    values = {name.upper(): value for name, value in variables.items() if value}
    if SETTING in values:
        return values[SETTING]
    section = SETTING.partition("__")[0]
    if section not in values:
        return None
    try:
        found = json.loads(values[section]).get("state_folder")
    except (ValueError, AttributeError):
        _refuse(f"{section}: should be a JSON object")
    if found is not None and not isinstance(found, str):
        _refuse(f"{SETTING}: should be a path")
    return found


def _env_file() -> Mapping[str, str | None]:
    """Return the variables of `.env`, which is UTF-8 with or without a byte order mark."""
    file = Path(".env")
    try:
        if not file.is_file():
            return {}
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        _refuse(f"{file}: should be UTF-8 text")
    except OSError as error:
        _refuse(f"{file}: cannot be read: {error.strerror}")
    from io import StringIO  # noqa: PLC0415 -- most deployments have no such file

    from dotenv import dotenv_values  # noqa: PLC0415 -- as above

    return dotenv_values(stream=StringIO(text))


def _refuse(fault: str) -> NoReturn:
    sys.stderr.write(f"{fault}\n")
    sys.exit(os.EX_CONFIG)
