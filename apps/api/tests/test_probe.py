"""`tequipy-api health`: whether the API of this machine answers, and whether it can serve."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from signal import SIGTERM

import pytest

from tequipy_api.probe import find_fault

from .instance import StartApi, eventually


def health(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command: list[str | Path] = [Path(sys.executable).with_name("tequipy-api"), "health", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_running_api_is_healthy_and_ready_until_it_drains(start_api: StartApi) -> None:
    """Status 0 while it serves; at SIGTERM it is not ready any more, but healthy until it ends."""
    instance = start_api(TEQUIPY_SERVER__DRAIN_PERIOD="30")
    instance.wait_until_ready()
    port = ("--port", str(instance.port))
    for options in (port, ("--ready", *port), (*port, "--ready")):
        result = health(*options)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    instance.process.send_signal(SIGTERM)
    eventually("it is not ready", lambda: health(*port, "--ready").returncode == 1)
    assert health(*port, "--ready").stderr == "/api/v1/readiness: 503 Service Unavailable\n"
    assert health(*port).returncode == 0


def test_no_api_is_one_line(free_port: Callable[[], int]) -> None:
    """A port where nobody listens, or none at all, is status 1 and one line; settings are not needed."""
    port = free_port()
    result = health("--port", str(port))
    assert result.returncode == 1
    assert result.stderr.startswith(f"127.0.0.1:{port} does not answer: ")
    assert result.stderr.count("\n") == 1
    assert find_fault(70000) is not None


@pytest.mark.parametrize("arguments", [["--help"], ["--port", "x"], ["--port", "0"], ["now"]], ids=str)
def test_help_and_wrong_arguments_are_those_of_the_command_line(arguments: list[str]) -> None:
    """`--help` and a wrong argument are handled like those of other commands."""
    result = health(*arguments)
    assert "Usage: tequipy-api health" in result.stdout + result.stderr
    assert result.returncode == (0 if arguments == ["--help"] else 2)


def test_the_probe_costs_little(free_port: Callable[[], int]) -> None:
    """The whole probe takes less than 150 ms of processor time, and imports no large library."""

    def cost() -> float:
        before = getrusage(RUSAGE_CHILDREN)
        health("--port", str(free_port()))
        after = getrusage(RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    costs = sorted(cost() for _ in range(5))
    print(f"\nhealth: {[round(1000 * seconds) for seconds in costs]} ms of processor time")
    assert costs[0] < 0.15
    code = (
        "import sys; sys.argv = ['', 'health', '--port', '1']; import tequipy_api.__main__ as entry\n"
        "try: entry.main()\nexcept SystemExit: print(*sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pydantic", "fastapi", "click", "asyncio", "http.client"} & set(result.stdout.split())
