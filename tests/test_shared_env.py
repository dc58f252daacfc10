"""Both apps can read one environment and one `.env`."""

from tequipy_api.settings import ApiSettings
from tequipy_worker.settings import WorkerSettings


def test_each_app_knows_the_names_of_the_other() -> None:
    """Neither app refuses or warns of a name of the other one in a shared `.env`."""
    api, worker = set(ApiSettings.model_fields), set(WorkerSettings.model_fields)
    assert ApiSettings.names_of_other_apps == worker - api
    assert WorkerSettings.names_of_other_apps == api - worker


def test_both_apps_refuse_the_same_old_names() -> None:
    """A setting that has another name now is refused by both, so that no app starts on half of an old environment."""
    assert ApiSettings.renamed == WorkerSettings.renamed
