"""Settings of an app: the base model, loading from the environment and `.env`, and checks. Only apps load settings."""

from tequipy_platform.settings.app_settings import AppSettings, Environment, ProductionChecked
from tequipy_platform.settings.loading import (
    describe_settings,
    load_settings,
    refuse,
    refuse_missing_folder,
    variable_of,
)
from tequipy_platform.settings.secret_checks import BUILT_IN, HoldsSecrets, is_guessable
from tequipy_platform.settings.urls import PublicUrl, split_url

__all__ = [
    "BUILT_IN",
    "AppSettings",
    "Environment",
    "HoldsSecrets",
    "ProductionChecked",
    "PublicUrl",
    "describe_settings",
    "is_guessable",
    "load_settings",
    "refuse",
    "refuse_missing_folder",
    "split_url",
    "variable_of",
]
