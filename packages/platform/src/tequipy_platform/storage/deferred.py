"""obstore, imported at its first use: most processes only hold a storage, and the library takes 5 MiB."""

from importlib import import_module


def __getattr__(name: str) -> object:
    if name in {"exceptions", "store"}:
        return import_module(f"obstore.{name}")
    return getattr(import_module("obstore"), name)
