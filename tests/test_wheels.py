"""The metadata and the contents of the wheels."""

from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile

import pytest
from trove_classifiers import classifiers

from .public_modules import PACKAGES, ROOT
from .wheels import build_wheels, metadata_of

PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Return the wheels of this tree by the names of their packages."""
    return build_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.mark.parametrize("package", PACKAGES)
def test_the_metadata_of_a_wheel_is_complete(wheels: Mapping[str, Path], package: str) -> None:
    """A wheel has licence, URLs, known classifiers, pinned siblings, the mark of typed code, and its README."""
    wheel = wheels[f"tequipy-{package}"]
    metadata = metadata_of(wheel)
    assert metadata.license_expression
    assert not [each for each in metadata.classifiers or [] if each.startswith("License ::")]  # PEP 639
    assert set(metadata.classifiers or []) <= classifiers
    assert {"Typing :: Typed", *(f"Programming Language :: Python :: {each}" for each in PYTHONS)} <= set(
        metadata.classifiers or []
    )
    assert metadata.keywords
    assert list(metadata.project_urls or {}) == ["Homepage", "Documentation", "Repository", "Changelog"]
    assert metadata.requires_python == ">=3.11"
    for requirement in metadata.requires_dist or []:
        if requirement.name.startswith("tequipy-"):
            assert str(requirement.specifier) == f"=={metadata.version}", requirement
    readme = (ROOT / f"packages/{package}/README.md").read_text(encoding="utf-8")
    assert (metadata.description or "").strip() == readme.strip()
    with ZipFile(wheel) as files:
        names = files.namelist()
        for file in metadata.license_files or []:
            assert f"tequipy_{package}-{metadata.version}.dist-info/licenses/{file}" in names
        assert f"tequipy_{package}/py.typed" in names
        assert not [name for name in names if "/tests/" in name]
    assert (ROOT / f"packages/{package}/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
