"""The images of deploy/Dockerfile, built by buildah without a container engine, on bases that mmdebstrap makes."""

import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tequipy_devstack.proving import Program

from .promql import ROOT

TOOLS = ("buildah", "mmdebstrap", "unshare", "chroot")
MISSING = [name for name in TOOLS if shutil.which(name) is None]
DOCKERFILE = ROOT / "deploy/Dockerfile"

SUITE: Final = "bookworm"
BUILD_PACKAGES: Final = "python3-venv,dash,coreutils,findutils"
RUNTIME_PACKAGES: Final = "python3-minimal,libpython3-stdlib,libstdc++6,tzdata"
"""Python, the C++ library of greenlet, and time zones for kombu. An image needs no shell and no other program."""

_CONTAINER: Final = """
set -e
root=$1 tmp=$2 data=$3 user=$4 path=$5
shift 5
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"  # with /dev/shm, which locks of processes need
mount --bind /proc "$root/proc"
mount --bind "$tmp" "$root/tmp"
mount --bind "$data" "$root/var/lib/tequipy"
mount -o remount,bind,ro "$root"
export PATH="$path"
exec /usr/sbin/chroot --groups= --userspec="$user:$user" "$root" "$@"
"""
"""What a container engine does: a read-only root, /tmp and a volume, and a user that /etc/passwd does not know."""


@dataclass(frozen=True)
class Image:
    """A built image: the folder of its root file system, its configuration, and its size beyond the base in bytes."""

    root: Path
    config: Mapping[str, Any]
    size: int

    @property
    def command(self) -> list[str]:
        """The entry point and the default arguments."""
        return [str(word) for word in (*self.config["Entrypoint"], *self.config["Cmd"])]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the image sets."""
        return dict(variable.split("=", 1) for variable in self.config["Env"])

    @property
    def health_check(self) -> list[str]:
        """The command of HEALTHCHECK, which is run without a shell."""
        kind, *command = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return [str(word) for word in command]


class Container:
    """A place where commands of an image run as one user: with a private /tmp, a volume, and nothing else to write."""

    def __init__(self, image: Image, folder: Path, data: Path, *, user: int, environment: Mapping[str, str]) -> None:
        self.image = image
        self._folder = folder
        self._arguments: list[str | Path] = [
            *("unshare", "--mount", "sh", "-c", _CONTAINER, "sh"),
            *(image.root, folder / "tmp", data, str(user), image.environment["PATH"]),
        ]
        self._environment = {**image.environment, **environment, "PATH": os.defpath}
        (folder / "tmp").mkdir(parents=True)
        (folder / "tmp").chmod(0o1777)
        (image.root / "proc").mkdir(exist_ok=True)

    def program(self, *arguments: str) -> Program:
        """Return the entry point with arguments, those of the image by default; entering it starts it."""
        command = [*self.image.config["Entrypoint"], *arguments] if arguments else self.image.command
        return Program([*self._arguments, *command], self._environment, self._folder / "log")

    def run(self, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*self._arguments, *command],
            env=self._environment,
            input=text,
            text=True,
            check=False,
            capture_output=True,
            timeout=120,
        )

    def health(self, *options: str) -> int:
        """Return the status of the image's health check, with further options."""
        return self.run(*self.image.health_check, *options).returncode


class Builder:
    """Builds images in a storage of its own, which ends with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._containers: list[str] = []

    def build(self, target: str, *, version: str) -> Image:
        """Build one target of the Dockerfile."""
        arguments = {"BASE": "localhost/base:build", "RUNTIME": "localhost/base:runtime", "APP_VERSION": version}
        self._buildah(
            "bud",
            "--isolation=chroot",
            "--format=docker",  # the format of OCI has no HEALTHCHECK
            "--layers",
            f"--file={DOCKERFILE}",
            f"--target={target}",
            f"--tag=localhost/{target}",
            *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            *(f"--volume={outside}:{inside}:ro" for outside, inside in self._trust()),
            str(ROOT),
        )
        config = json.loads(self._buildah("inspect", "--type=image", f"localhost/{target}"))["Docker"]["config"]
        size = self._size(f"localhost/{target}") - self._size("localhost/base:runtime")
        return Image(self._mounted(f"localhost/{target}"), config, size)

    def _size(self, image: str) -> int:
        """Return the size of an image's files in bytes."""
        return sum(path.lstat().st_size for path in self._mounted(image).rglob("*") if not path.is_dir())

    def _mounted(self, image: str) -> Path:
        container = self._buildah("from", image).strip()
        self._containers.append(container)
        return Path(self._buildah("mount", container).strip())

    def _trust(self) -> list[tuple[Path, str]]:
        """Return files that let pip and uv trust the authorities of this machine, with their paths in the build."""
        authorities = Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt").resolve()
        inside = "/etc/ssl/certs/ca-certificates.crt"
        pip, uv = self._folder / "pip.conf", self._folder / "uv.toml"
        pip.write_text(f"[global]\ncert = {inside}\n")
        uv.write_text("system-certs = true\n")
        return [(authorities, inside), (pip, "/etc/pip.conf"), (uv, "/etc/uv/uv.toml")]

    def _make_base(self, tag: str, packages: str) -> None:
        archive = self._folder / f"{tag}.tar"
        _run(
            "mmdebstrap",
            "--variant=extract",  # no maintainer scripts, which need a shell
            '--aptopt=APT::Sandbox::User "root"',
            f"--include={packages}",
            SUITE,
            str(archive),
        )
        container = self._buildah("from", "scratch").strip()
        self._buildah("add", "--quiet", container, str(archive), "/")
        self._buildah("commit", "--quiet", "--rm", container, f"localhost/base:{tag}")
        archive.unlink()

    def _buildah(self, *arguments: str) -> str:
        storage = ("--root", str(self._folder / "storage"), "--runroot", str(self._folder / "run"))
        return _run("buildah", *storage, *arguments)

    def __enter__(self) -> Self:
        self._make_base("build", BUILD_PACKAGES)
        self._make_base("runtime", RUNTIME_PACKAGES)
        return self

    def __exit__(self, *_: object) -> None:
        for container in self._containers:
            self._buildah("umount", container)
            self._buildah("rm", container)
        self._buildah("rmi", "--all", "--force")


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert result.returncode == 0, f"{command}: {result.stdout[-2000:]}{result.stderr[-4000:]}"
    return result.stdout


def installed(root: Path) -> dict[str, str]:
    """Return name and version of each distribution in an image."""
    metadata = root.glob("app/lib/python3*/site-packages/*.dist-info/METADATA")
    return dict(_name_and_version(path.read_text(encoding="utf-8")) for path in metadata)


def _name_and_version(metadata: str) -> tuple[str, str]:
    fields: Sequence[str] = metadata.partition("\n\n")[0].splitlines()
    values = dict(line.split(": ", 1) for line in reversed(fields) if ": " in line)
    return values["Name"].lower().replace("_", "-").replace(".", "-"), values["Version"]
