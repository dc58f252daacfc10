"""The error for a library that only an extra installs; every package names its extras by it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


@contextmanager
def needs_extra(requirement: str, *modules: str) -> Iterator[None]:
    """Name the extra in the error if an import in this block fails; `requirement` is like `tequipy-caching[api]`.

    `modules` are looked for, but not imported: those that are loaded later. Raises `ModuleNotFoundError` with the name
    of the missing module.
    """
    try:
        missing = [module for module in modules if not _is_installed(module)]
        if not missing:
            yield
            return
        cause = ModuleNotFoundError(name=missing[0])
    except ModuleNotFoundError as error:
        cause = error
    text = f"there is no module {cause.name!r}: install {requirement}"
    raise ModuleNotFoundError(text, name=cause.name) from cause


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # it is loaded, and has no `__spec__`: kombu replaces its own module
        return True
