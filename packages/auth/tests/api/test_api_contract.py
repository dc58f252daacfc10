"""What auth adds to the OpenAPI document of a host."""

from pydantic import BaseModel

from tequipy_auth.testing import MemoryAuthUnitOfWork

from .limited_app import build_limited_app


class RegisterBody(BaseModel):
    """A model of the host."""

    password: str


def test_a_host_may_have_a_model_of_the_same_name(work: MemoryAuthUnitOfWork) -> None:
    """The limits of new passwords are in our schema, and not in that of the host."""
    app = build_limited_app(work, prefix="")

    @app.post("/own")
    def own(body: RegisterBody) -> None:
        """Take a body of the host."""

    schemas = app.openapi()["components"]["schemas"]
    found = [schemas[name]["properties"]["password"] for name in schemas if name.endswith("RegisterBody")]
    assert sorted("minLength" in each for each in found) == [False, True]
