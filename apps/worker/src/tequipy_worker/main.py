"""The app for Celery's own commands: `celery -A tequipy_worker.main …`; `tequipy-worker run` adds its configuration."""

from tequipy_platform.settings import load_settings
from tequipy_worker.app import create_worker
from tequipy_worker.settings import WorkerSettings

celery = create_worker(load_settings(WorkerSettings))
