"""deploy/kubernetes: valid manifests whose commands, probes, ports and variables are those of the apps."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate  # type: ignore[import-untyped]  # -- it has no types
import pytest
import yaml

from tequipy_api.settings import ApiSettings
from tequipy_platform.settings import AppSettings, load_settings
from tequipy_worker.catalogue import QUEUES
from tequipy_worker.settings import WorkerSettings

from .command_lines import check_command
from .kubernetes import FOLDER, KUSTOMIZATIONS, Manifest, kustomization, manifests, pod_of, variables
from .promql import ROOT

MANIFESTS = list(manifests())
IDS = [f"{manifest['kind']}-{manifest['metadata']['name']}" for _, manifest in MANIFESTS]
PODS = {manifest["metadata"]["name"]: pod for _, manifest in MANIFESTS if (pod := pod_of(manifest))}
SECRETS = variables(FOLDER / "secrets.env.example")
SETTINGS = variables(FOLDER / "settings.env")
MODELS: Mapping[str, type[AppSettings]] = {"tequipy-api": ApiSettings, "tequipy-worker": WorkerSettings}
VERSION = "1.30"
"""The oldest version of Kubernetes that is maintained by the large providers."""
KUBECTL = shutil.which("kubectl")


def of_kind(kind: str) -> dict[str, Manifest]:
    """Return the manifests of a kind by name."""
    return {manifest["metadata"]["name"]: manifest for _, manifest in MANIFESTS if manifest["kind"] == kind}


def container_of(name: str) -> Manifest:
    """Return the one container of a workload."""
    (container,) = PODS[name]["spec"]["containers"]
    return dict(container)


def labels_match(selector: Manifest, pod: Manifest) -> bool:
    """Return whether a selector by labels finds a pod."""
    return all(pod["metadata"]["labels"].get(name) == value for name, value in selector["matchLabels"].items())


@pytest.mark.parametrize("manifest", [manifest for _, manifest in MANIFESTS], ids=IDS)
def test_manifests_are_valid(manifest: Manifest) -> None:
    """Each object fits the schema of the oldest and the newest version of Kubernetes, without unknown fields."""
    if manifest["apiVersion"].startswith("keda.sh/"):
        assert set(manifest["spec"]) <= {
            *("scaleTargetRef", "pollingInterval", "cooldownPeriod", "minReplicaCount", "maxReplicaCount"),
            *("fallback", "triggers", "advanced"),
        }
        return  # its schema belongs to KEDA
    for version in (VERSION, kubernetes_validate.latest_version()):
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("name", PODS)
def test_commands_and_probes_exist(name: str) -> None:
    """Arguments and commands are accepted by the command line of the image; paths are in the contract, ports open."""
    container = container_of(name)
    check_command([container["image"], *container["args"]])
    probes = [container[probe] for probe in container if probe.endswith("Probe")]
    assert len(probes) == (0 if name == "migrate" else 3)
    paths = json.loads((ROOT / "apps/api/openapi.json").read_text(encoding="utf-8"))["paths"]
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    for probe in probes:
        if "exec" in probe:
            check_command(probe["exec"]["command"])
            assert probe["exec"]["command"][2] == container["args"][0], "the probe is that of its process"
        else:
            assert probe["httpGet"]["path"] in paths
            assert probe["httpGet"]["port"] in ports
    if name != "migrate":
        assert ports["metrics"] == int(SETTINGS["TEQUIPY_OBSERVABILITY__METRICS_PORT"])
        assert PODS[name]["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    if name == "api":
        assert container["args"][container["args"].index("--port") + 1] == str(ports["http"])


@pytest.mark.parametrize("name", PODS)
def test_settings_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Production starts with ConfigMap, Secrets and the variables of the container, and knows all of them."""
    for variable in [variable for variable in os.environ if variable.startswith("TEQUIPY_")]:
        monkeypatch.delenv(variable)
    for variable, value in environment_of(name).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    load_settings(MODELS[container_of(name)["image"]], strict=True)


def environment_of(name: str) -> dict[str, str]:
    """Return the variables of a container: the last source wins, and what the container names itself wins over all."""
    container = container_of(name)
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        (reference,) = source.values()
        found |= SOURCES[reference["name"]] if "secretRef" in source else SETTINGS
    return found | {each["name"]: each["value"] for each in container.get("env", [])}


@pytest.mark.parametrize("name", PODS)
def test_only_the_job_has_the_password_of_the_owner(name: str) -> None:
    """The Job migrates as the owner of the tables, and what serves logs in as a role that cannot change them."""
    role = urlsplit(environment_of(name)["TEQUIPY_DATABASE__URL"]).username
    assert role == ("tequipy_owner" if name == "migrate" else "tequipy_app")
    assert f"create role {role} login;" in (ROOT / "docs/security.md").read_text(encoding="utf-8")


def filled(values: Mapping[str, str]) -> dict[str, str]:
    """Return the example of the Secret with a random text for each placeholder."""
    return {name: value.replace("SECRET", secrets.token_urlsafe(32)) for name, value in values.items()}


SOURCES = {"tequipy": filled(SECRETS), "tequipy-owner": filled(variables(FOLDER / "owner.env.example"))}
"""The Secrets that README.md of deploy/ creates, by name."""


def test_the_example_of_the_secret_is_refused_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Production does not start with the placeholders."""
    for variable, value in {**SETTINGS, **SECRETS}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        load_settings(ApiSettings)
    assert ended.value.code == os.EX_CONFIG


@pytest.mark.parametrize("name", PODS)
def test_pods_are_restricted(name: str) -> None:
    """No root, no privileges, a read-only root with /tmp, no links of services, no token of the cluster; requests."""
    pod, container = PODS[name]["spec"], container_of(name)
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]  # noqa: S108 -- in the container
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    assert f"USER {pod['securityContext']['runAsUser']}:" in (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    if name != "migrate":
        server = ApiSettings.model_fields["server"].get_default(call_default_factory=True)
        assert pod["terminationGracePeriodSeconds"] > server.drain_period + server.shutdown_timeout


def test_objects_are_in_s3() -> None:
    """Pods share no volume: object storage is a bucket."""
    assert urlsplit(SETTINGS["TEQUIPY_STORAGE__URL"]).scheme == "s3"


def test_each_queue_has_one_worker_and_mails_their_own() -> None:
    """Every queue is consumed by one Deployment, and the queue of mails by a Deployment of its own."""
    arguments = {name: container_of(name)["args"] for name in PODS}
    queues = {name: each[2].split(",") for name, each in arguments.items() if each[0] == "run"}
    assert sorted(queue for each in queues.values() for queue in each) == sorted(QUEUES)
    assert queues["mailer"] == ["email"]


def test_every_deployment_keeps_pods_and_is_found() -> None:
    """Each Deployment selects its own pods, and has a budget of disruptions; autoscalers set the number of pods."""
    deployments, budgets = of_kind("Deployment"), of_kind("PodDisruptionBudget")
    scaled = {each["spec"]["scaleTargetRef"]["name"] for kind in SCALERS for each in of_kind(kind).values()}
    assert set(budgets) == set(deployments)
    assert scaled == {"api", "worker", "mailer"}
    for name, deployment in deployments.items():
        selected = [pod for pod in PODS if labels_match(deployment["spec"]["selector"], PODS[pod])]
        assert selected == [name]
        assert labels_match(budgets[name]["spec"]["selector"], PODS[name])
        assert ("replicas" in deployment["spec"]) == (name not in scaled), "applied again, it would undo the scaling"
        least = deployment["spec"].get("replicas") or minimum_of(name)
        assert least >= 2, "one pod can be moved while another works"


SCALERS = ("HorizontalPodAutoscaler", "ScaledObject")


def minimum_of(name: str) -> int:
    """Return the least number of pods that an autoscaler keeps."""
    specs = [of_kind(kind)[name]["spec"] for kind in SCALERS if name in of_kind(kind)]
    return int(specs[0].get("minReplicas") or specs[0]["minReplicaCount"])


@pytest.mark.parametrize("name", ["worker", "mailer"])
def test_workers_are_scaled_by_the_metrics_of_the_relay(name: str) -> None:
    """KEDA asks Prometheus for unsettled messages and waiting times of the queues that the Deployment consumes."""
    scaled = of_kind("ScaledObject")[name]["spec"]
    queues = container_of(name)["args"][2].replace(",", "|")
    queries = [trigger["metadata"]["query"] for trigger in scaled["triggers"]]
    assert queries == [
        f'sum(max by (queue) (messages_unsettled{{queue=~"{queues}"}}))',
        f'max(queue_oldest_age_seconds{{queue=~"{queues}"}})',
    ]
    for trigger in scaled["triggers"]:
        assert trigger["type"] == "prometheus"
        assert set(trigger["metadata"]) == {"serverAddress", "query", "threshold"}
        assert float(trigger["metadata"]["threshold"]) > 0
    assert scaled["scaleTargetRef"] == {"name": name}


def test_the_network_lets_through_what_is_needed() -> None:
    """Ingress: the API's port and that of the metrics. Egress: DNS, HTTPS and the servers that the Secret names."""
    policies = {name: manifest["spec"] for name, manifest in of_kind("NetworkPolicy").items()}
    assert policies["default"]["podSelector"] == {}
    assert set(policies["default"]["policyTypes"]) == {"Ingress", "Egress"}
    ingress = {port["port"] for spec in policies.values() for rule in spec.get("ingress", []) for port in rule["ports"]}
    assert ingress == {port["containerPort"] for port in container_of("api")["ports"]}
    (service,) = of_kind("Service").values()
    assert service["spec"]["selector"].items() <= PODS["api"]["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["targetPort"] == "http"

    def egress(policy: str) -> set[int]:
        return {port["port"] for rule in policies[policy]["egress"] for port in rule["ports"]}

    urls = {name: urlsplit(value) for name, value in SECRETS.items() if name.endswith("_URL")}
    del urls["TEQUIPY_MAIL__SMTP_URL"]
    assert {url.port for url in urls.values()} | {53, 443} == egress("default")
    assert urlsplit(SECRETS["TEQUIPY_MAIL__SMTP_URL"]).port in egress("mailer")
    assert labels_match(policies["mailer"]["podSelector"], PODS["mailer"])


def test_each_file_belongs_to_a_kustomization() -> None:
    """No manifest is forgotten, and each image is one that deploy/Dockerfile builds."""
    for folder in KUSTOMIZATIONS:
        listed = {*kustomization(folder)["resources"], "kustomization.yaml"}
        assert {path.name for path in folder.glob("*.yaml")} == listed
        assert {image["name"] for image in kustomization(folder)["images"]} <= set(MODELS)


@pytest.mark.prove
@pytest.mark.quick
@pytest.mark.skipif(KUBECTL is None, reason="needs kubectl, which contains kustomize")
@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_kustomize_renders_them(folder: Any) -> None:
    """kustomize accepts the folder, renders each object once, and names images of a registry."""
    command = [str(KUBECTL), "kustomize", str(folder)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    objects = list(yaml.safe_load_all(rendered))
    expected = len([name for name, _ in MANIFESTS if (name == "job.yaml") == (folder.name == "migrate")])
    assert len(objects) == expected
    for each in objects:
        pod = pod_of(each)
        if pod:
            (container,) = pod["spec"]["containers"]
            assert container["image"].startswith("registry.example.com/tequipy-")
            references = [source["configMapRef"]["name"] for source in container["envFrom"] if "configMapRef" in source]
            assert all(name.startswith("tequipy-") for name in references), "a change of settings rolls the pods"
