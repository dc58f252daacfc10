"""Object storage in a local folder or in memory; the port is `tequipy_platform.ObjectStorage`."""

from tequipy_platform.storage.object_store import ObstoreStorage, build_storage
from tequipy_platform.storage.settings import StorageSettings

__all__ = ["ObstoreStorage", "StorageSettings", "build_storage"]
