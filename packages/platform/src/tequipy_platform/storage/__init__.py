"""Object storage in S3, in a local folder or in memory; the port is `tequipy_platform.ObjectStorage`.

obstore is imported when a storage is first used, because most processes only hold one.
"""

from importlib.util import find_spec

if find_spec("obstore") is None:  # pragma: no cover -- tests/test_packages.py runs it without the extra
    raise ImportError("tequipy_platform.storage needs the extra: pip install 'tequipy-platform[storage]'")

from tequipy_platform.storage.object_store import ObstoreStorage, build_storage
from tequipy_platform.storage.settings import StorageSettings

__all__ = ["ObstoreStorage", "StorageSettings", "build_storage"]
