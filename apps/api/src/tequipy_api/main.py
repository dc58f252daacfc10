"""The app for any ASGI server: `uvicorn tequipy_api.main:app`.

`tequipy-api serve` adds the following in its server; configure it yourself in any other server:

- limits of connections (`TEQUIPY_SERVER__*`): size of a head (431), timeouts of head and body (408), number of
  connections. gunicorn and hypercorn have options for them. uvicorn has none for heads and bodies, so put a proxy in
  front of it that does (nginx: `large_client_header_buffers`, `client_header_timeout`, `client_body_timeout`,
  `worker_connections`);
- ignoring `Upgrade` without losing the body: uvicorn with httptools parses the body as a second request (400);
- trusted proxies (`TEQUIPY_TRUSTED_PROXIES`): uvicorn's `--proxy-headers --forwarded-allow-ips`;
- draining at SIGTERM: call `app.state.readiness.drain()` some seconds before the listener closes.
"""

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_platform.settings import load_settings, refuse_missing_folder

refuse_missing_folder("PROMETHEUS_MULTIPROC_DIR")
app = create_app(load_settings(ApiSettings))
