"""`needs_extra`; tests/test_extras.py tests the extras of all packages with it."""

import importlib
import sys
from types import ModuleType

import pytest

from tequipy_observability import needs_extra


def test_a_missing_module_is_named_with_the_extra() -> None:
    """A module that is looked for, or imported in the block, is in the error, with what to install."""
    expected = r"^there is no module 'absent': install shop\[api\]$"
    with pytest.raises(ModuleNotFoundError, match=expected), needs_extra("shop[api]", "json", "absent"):
        pass
    with pytest.raises(ModuleNotFoundError, match=expected) as caught, needs_extra("shop[api]"):
        importlib.import_module("absent")
    assert caught.value.name == "absent"


def test_other_errors_pass_unchanged() -> None:
    """An error that is no missing module keeps its type and text."""
    with pytest.raises(ImportError, match=r"^broken$"), needs_extra("shop[api]", "json"):
        raise ImportError("broken")


def test_a_loaded_module_without_a_spec_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kombu replaces its own module by an object without `__spec__`, which `find_spec` refuses."""
    monkeypatch.setitem(sys.modules, "replaced", ModuleType("replaced"))
    with needs_extra("shop[api]", "replaced"):
        pass
