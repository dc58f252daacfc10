"""The app for any ASGI server: `uvicorn tequipy_api.main:app`.

What `tequipy-api serve` does beside it is done by the server, and another server has to be told to do it itself:

- the bounds of connections (`TEQUIPY_SERVER__*`): the size of a head (431), the time for head and body (408), how many
  connections there are. gunicorn and hypercorn have options of their own; uvicorn has none for heads and bodies, so put
  a proxy in front of it that does (nginx: `large_client_header_buffers`, `client_header_timeout`,
  `client_body_timeout`, `worker_connections`);
- `Upgrade` ignored with the body delivered: uvicorn with httptools answers the body as a second request with 400;
- the trusted proxies (`TEQUIPY_TRUSTED_PROXIES`): uvicorn's `--proxy-headers --forwarded-allow-ips`;
- draining at SIGTERM: call `app.state.readiness.drain()` some seconds before the listener closes.
"""

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_platform.wiring import load_settings, refuse_missing_folder

refuse_missing_folder("PROMETHEUS_MULTIPROC_DIR")
app = create_app(load_settings(ApiSettings))
