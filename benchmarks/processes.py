"""Measures the memory of each idle process, and the time from the start of the API until it is ready.

The processes run on embedded servers with migrated tables, in environments that hold what the images hold: with uv (its
path in the variable `UV`, as `make bench` sets it), the packages are installed without the development tools, some of
which libraries load if they find them. A start is compared with that of a process that only imports the libraries of a
minimal service, in turn, because both depend on the machine's load; the CPU time is the steadier figure.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
from harness.testbed import migrated_deployment
from report import print_table

from tequipy_devstack.proving import Deployment, Program, eventually

STARTS: Final = 7
CHILDREN: Final = 2
RESTS_BELOW: Final = 0.03
"""Seconds of CPU time in a second below which a process has finished its start."""
ROOT: Final = Path(__file__).parents[1]
LIBRARIES: Final = ("fastapi", "uvicorn", "sqlalchemy.ext.asyncio", "asyncpg", "redis.asyncio", "pydantic_settings")
API_MIB: Final = 110
WORKER_MIB: Final = 90


def install(folder: Path) -> tuple[Path, Path]:
    """Return the folders of the programs of both apps, installed as in their images; without uv, our own folder."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        here = Path(sys.executable).parent
        return here, here
    for name in ("api", "worker"):
        subprocess.run(  # noqa: S603 -- our own command line
            [uv, "sync", "--quiet", "--frozen", "--no-dev", "--compile-bytecode", "--package", f"tequipy-{name}"],
            cwd=ROOT,
            env=os.environ | {"UV_PROJECT_ENVIRONMENT": str(folder / name), "UV_PYTHON": sys.executable},
            check=True,
        )
    return folder / "api" / "bin", folder / "worker" / "bin"


def settled_memory(process: psutil.Process) -> int:
    """Return the resident memory of a process in MiB as soon as it has finished its start."""

    def rests() -> bool:
        before = process.cpu_times()
        time.sleep(1)
        after = process.cpu_times()
        return after.user > 0 and after.user + after.system - before.user - before.system < RESTS_BELOW

    eventually("the process rests", rests)
    return round(process.memory_info().rss / 2**20)


def measure(name: str, program: Program, limit: int, *, children: int = 0) -> Iterator[tuple[str, int, int]]:
    """Start a program and yield a row for it and for each child process: name, resident MiB and the limit."""
    with program:
        process = psutil.Process(program.pid)
        eventually("its heartbeat or its children are there", lambda: len(process.children()) >= children)
        eventually("its modules are loaded", lambda: process.memory_info().rss > 2**20 * limit / 2)
        memory = settled_memory(process)
        yield name, memory, limit
        for child in process.children():
            yield f"{name}, child", settled_memory(child), limit


def start_api(deployment: Deployment, programs: Path) -> tuple[float, float]:
    """Start the API; return the seconds until it is ready, and the CPU seconds that it has used."""
    api = deployment.api(programs / "tequipy-api", "serve")
    began = time.perf_counter()
    with api:
        waited = time.perf_counter() - began
        times = psutil.Process(api.pid).cpu_times()
        return waited, times.user + times.system


def start_libraries(programs: Path) -> tuple[float, float]:
    """Start a process that imports the libraries; return its seconds and CPU seconds."""
    code = f"import time, {', '.join(LIBRARIES)}; print(time.process_time())"
    began = time.perf_counter()
    spent = subprocess.run([programs / "python", "-c", code], check=True, capture_output=True, text=True).stdout  # noqa: S603 -- our own code
    return time.perf_counter() - began, float(spent)


def main() -> None:
    """Measure and print both tables."""
    with migrated_deployment() as deployment, tempfile.TemporaryDirectory() as folder:
        api, worker = install(Path(folder))
        program = worker / "tequipy-worker"
        rows = [
            *measure("api", deployment.api(api / "tequipy-api", "serve"), API_MIB),
            *measure("worker", deployment.worker(program, "run"), WORKER_MIB, children=CHILDREN),
            *measure("beat", deployment.scheduler(program, "beat"), WORKER_MIB),
            *measure("relay", deployment.relay(program, "relay"), WORKER_MIB),
        ]
        print_table("Memory of idle processes", ["", "MiB resident", "limit"], rows)
        starts = [(start_api(deployment, api), start_libraries(api)) for _ in range(STARTS)]
    ours, libraries = ([(wall, cpu) for wall, cpu in column] for column in zip(*starts, strict=True))
    table = []
    for name, column in (("api until ready", ours), ("imports of the libraries", libraries)):
        walls, cpus = zip(*column, strict=True)
        table.append((name, min(walls), statistics.median(walls), min(cpus), statistics.median(cpus)))
    ratio = statistics.median(one[1] / other[1] for one, other in starts)
    print_table(
        f"Start, {STARTS} of each in turn; CPU seconds of the API / of the imports, median: {ratio:.2f}",
        ["", "seconds, least", "median", "CPU seconds, least", "median"],
        table,
    )


if __name__ == "__main__":
    main()
