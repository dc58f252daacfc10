"""Settings of the object storage."""

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic_core import PydanticCustomError


class StorageSettings(BaseModel):
    """The location of the object storage."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: str = "file:///var/lib/tequipy/objects"
    """`file:///absolute/folder` (created if it is missing), or `memory://`, whose content is lost with the process."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, text: str) -> str:
        url = urlsplit(text)
        if text != "memory://" and not (url.scheme == "file" and not url.netloc and url.path.startswith("/")):
            raise PydanticCustomError("url_scheme", "should be file:///absolute/folder or memory://")
        return text

    def production_faults(self) -> list[tuple[str, str]]:
        """Refuse a storage in production that does not survive the process."""
        return [("url", "memory:// is refused in production: it ends with the process")] if self.in_memory else []

    @property
    def in_memory(self) -> bool:
        """Whether objects are lost when the process ends."""
        return self.url == "memory://"
