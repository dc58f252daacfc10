"""The wheels of a release, built from its sources and installed into a folder of their own."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from packaging.metadata import Metadata

from .public_modules import ROOT


@dataclass(frozen=True)
class Wheels:
    """The packages of this project in one version; other packages are those of the current environment."""

    name: str
    folder: Path

    def command(self, program: str, *arguments: str) -> list[str | Path]:
        """Return a command line of this version; run it with `variables`."""
        return [self.folder / "bin" / program, *arguments]

    @property
    def variables(self) -> dict[str, str]:
        """The variables under which Python finds these packages before those of the environment."""
        return {"PYTHONPATH": str(self.folder)}


def find_uv() -> str:
    """Return the uv that runs these tests, or the one on the path."""
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is needed: run the tests by `make test`"
    return uv


def build_wheels(folder: Path, sources: Path = ROOT) -> dict[str, Path]:
    """Build all packages of a tree into `folder`; return their files by name, such as `tequipy-auth`."""
    _uv("build", "--all-packages", "--wheel", "--out-dir", str(folder), cwd=sources)
    return {file.name.partition("-")[0].replace("_", "-"): file for file in sorted(folder.glob("*.whl"))}


def metadata_of(wheel: Path) -> Metadata:
    """Return the metadata of a wheel; raises an exception group if it is invalid."""
    with ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        return Metadata.from_email(files.read(name), validate=True)


def wheels_of_today(folder: Path) -> Wheels:
    """Return the packages of this tree, installed below `folder`."""
    return _installed("today", ROOT, folder)


def wheels_of_last_release(folder: Path) -> Wheels | None:
    """Return the packages of the last release, installed below `folder`; None if this clone does not have it."""
    version = unpack_last_release(folder / "sources")
    return _installed(version, folder / "sources", folder) if version else None


def unpack_last_release(folder: Path) -> str | None:
    """Write the sources of the last release into `folder`; return its version, or None if this clone lacks it."""
    published = tomllib.loads((ROOT / ".ci/releases.toml").read_text(encoding="utf-8"))
    if not published:
        return None
    version, commit = list(published.items())[-1]
    command = ["git", "archive", commit]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        return None
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return str(version)


def _installed(name: str, sources: Path, folder: Path) -> Wheels:
    installed = folder / name
    files = map(str, build_wheels(folder / f"{name}-wheels", sources).values())
    _uv("pip", "install", "--python", sys.executable, "--target", str(installed), "--no-deps", *files, cwd=folder)
    return Wheels(name, installed)


def _uv(*arguments: str, cwd: Path) -> None:
    result = subprocess.run([find_uv(), *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=110)
    assert result.returncode == 0, result.stderr
