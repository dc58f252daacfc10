"""S3 for tests: the server of moto in a process of its own, which keeps its objects in memory.

moto checks the condition of a write and stores the object in two steps, so its requests are served one at a time here;
S3 does both in one step.
"""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import TYPE_CHECKING
from uuid import uuid4

from tequipy_devstack.proving.waiting import put

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


@contextmanager
def s3_server() -> Iterator[str]:
    """Yield the address of a server of S3 on 127.0.0.1, which ends with the block or with this process."""
    command = [sys.executable, "-m", "tequipy_devstack.proving.s3"]
    with subprocess.Popen(  # noqa: S603 -- our own command
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process without pipes")
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


def new_bucket(server: str) -> str:
    """Create a bucket on the server, and return its name."""
    bucket = f"bucket-{uuid4()}"
    put(f"{server}/{bucket}").raise_for_status()
    return bucket


def main() -> None:
    """Serve until standard input ends; print the port."""
    # Imported at use, because every run of pytest imports this module.
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415
    from werkzeug.serving import make_server  # noqa: PLC0415

    moto = DomainDispatcherApplication(create_backend_app)
    lock = Lock()

    def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        with lock:
            return list(moto(environ, start_response))

    server = make_server("127.0.0.1", 0, app, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
