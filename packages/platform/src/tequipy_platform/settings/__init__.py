"""Settings of an app: the base model, loading from the environment and `.env`, and checks. Only apps load settings."""

from tequipy_platform.settings.app_settings import AppSettings, Environment, ProductionChecked
from tequipy_platform.settings.display import describe_settings, explain_settings
from tequipy_platform.settings.durations import read_seconds
from tequipy_platform.settings.loading import (
    load_settings,
    refuse,
    refuse_missing_folder,
    variable_of,
)
from tequipy_platform.settings.secret_checks import BUILT_IN, HoldsSecrets
from tequipy_platform.settings.urls import Origins, PublicUrl, origin_of

__all__ = [
    "BUILT_IN",
    "AppSettings",
    "Environment",
    "HoldsSecrets",
    "Origins",
    "ProductionChecked",
    "PublicUrl",
    "describe_settings",
    "explain_settings",
    "load_settings",
    "origin_of",
    "read_seconds",
    "refuse",
    "refuse_missing_folder",
    "variable_of",
]
