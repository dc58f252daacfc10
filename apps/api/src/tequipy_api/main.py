"""The app for any ASGI server: `uvicorn tequipy_api.main:app`; `tequipy-api serve` is the same with our settings."""

from tequipy_api.app import create_app
from tequipy_api.settings import ApiSettings
from tequipy_platform.wiring import load_settings

app = create_app(load_settings(ApiSettings))
