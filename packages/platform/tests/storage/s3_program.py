"""Serves S3 by moto on a free port of 127.0.0.1 until standard input ends; prints the port.

moto checks the condition of a write and stores the object in two steps, so its requests are served one at a time here;
S3 does both in one step.
"""

import sys
from collections.abc import Iterable
from threading import Lock, Thread
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

moto = DomainDispatcherApplication(create_backend_app)
lock = Lock()


def app(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """Let moto serve one request at a time."""
    with lock:
        return list(moto(environ, start_response))


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, app, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.port, flush=True)
    sys.stdin.read()
    server.shutdown()
