"""Settings of hypothesis for all tests."""

from hypothesis import HealthCheck, settings

# No test asserts an absolute time, and a busy machine must not fail a test.
settings.register_profile("tequipy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tequipy")
