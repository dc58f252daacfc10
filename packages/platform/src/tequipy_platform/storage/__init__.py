"""Object storage in S3, in a local folder or in memory; the port is `tequipy_platform.ObjectStorage`.

obstore is imported when a storage is first used, because most processes only hold one.
"""

from tequipy_observability import needs_extra

with needs_extra("tequipy-platform[storage]", "obstore"):
    from tequipy_platform.storage.object_store import ObstoreStorage, build_storage
    from tequipy_platform.storage.settings import StorageSettings

__all__ = ["ObstoreStorage", "StorageSettings", "build_storage"]
