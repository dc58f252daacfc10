"""Processes without tracing do not load OpenTelemetry."""

import subprocess
import sys

PROGRAM = """
import sys
from tequipy_observability.wiring import ObservabilitySettings, configure_observability
import tequipy_observability.celery
configure_observability(ObservabilitySettings({arguments}), service="shop", environment="test", version="1")
print(sorted(name for name in sys.modules if name.partition(".")[0] in {{"opentelemetry", "google", "requests"}})[:3])
"""


def loaded(arguments: str = "") -> str:
    """Return the modules of OpenTelemetry that a process with these settings has loaded."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return result.stdout.strip()


def test_opentelemetry_is_loaded_by_a_setting_alone() -> None:
    """Without an endpoint no module of OpenTelemetry or its dependencies is imported; with one, they are."""
    assert loaded() == "[]"
    assert loaded('otlp_endpoint="http://collector:4318"') != "[]"
