"""The manifests of deploy/kubernetes as kustomize renders them, but for names of images and suffixes of ConfigMaps."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from .promql import ROOT

FOLDER: Final = ROOT / "deploy/kubernetes"
KUSTOMIZATIONS: Final = (FOLDER, FOLDER / "migrate")
Manifest = dict[str, Any]


def kustomization(folder: Path) -> Manifest:
    """Return the kustomization of a folder."""
    loaded: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    return loaded


def manifests() -> Iterator[tuple[str, Manifest]]:
    """Yield file and manifest of each object, with its namespace, and those of generated ConfigMaps."""
    for folder in KUSTOMIZATIONS:
        config = kustomization(folder)
        for name in config["resources"]:
            for manifest in yaml.safe_load_all((folder / name).read_text(encoding="utf-8")):
                if manifest["kind"] != "Namespace":
                    manifest["metadata"]["namespace"] = config["namespace"]
                yield name, manifest
        for generator in config.get("configMapGenerator", []):
            data = {name: value for file in generator["envs"] for name, value in variables(folder / file).items()}
            metadata = {"name": generator["name"], "namespace": config["namespace"]}
            yield "kustomization.yaml", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def variables(file: Path) -> dict[str, str]:
    """Return the lines NAME=value of a file, as kustomize and kubectl read them."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def pod_of(manifest: Mapping[str, Any]) -> Manifest | None:
    """Return the pod template of a Deployment or Job, or None for other kinds."""
    template: Manifest | None = manifest.get("spec", {}).get("template")
    return template
