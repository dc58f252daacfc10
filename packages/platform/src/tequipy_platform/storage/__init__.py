"""Object storage in S3, in a local folder or in memory; the port is `tequipy_platform.ObjectStorage`."""

try:
    import obstore as _obstore  # noqa: F401 -- of the extra
except ImportError as error:  # pragma: no cover -- tests/test_packages.py runs it in an environment without the extra
    raise ImportError("tequipy_platform.storage needs the extra: pip install 'tequipy-platform[storage]'") from error

from tequipy_platform.storage.object_store import ObstoreStorage, build_storage
from tequipy_platform.storage.settings import StorageSettings

__all__ = ["ObstoreStorage", "StorageSettings", "build_storage"]
