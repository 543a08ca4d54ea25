"""The manifests of configs/kuberay against Kubernetes' schemas, Ray's autoscaler and this project's own code.

KubeRay's own schemas come in no package. KUBERAY_CRDS may name a directory with its ray.io_*.yaml
(helm-chart/kuberay-operator/crds of its repository).
"""

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.serve.schema import ServeDeploySchema

from pipeline.rerank import parse
from pipeline.reranking.config import RerankConfig, load_config
from serve.app import build_app
from serve.config import ServeConfig

ROOT = Path(__file__).parents[1]
MANIFESTS = ROOT / "configs/kuberay"
KUBERNETES = "1.37"
IMAGE_GROUP = 100
"""Of the user that Ray's image runs as, 1000:100."""


def documents(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MANIFESTS / file).read_text()))


def rayjob() -> dict[str, Any]:
    text = (MANIFESTS / "rerank-job.yaml").read_text()
    [document] = yaml.safe_load_all(text.replace("RUN_DATE", "2026-11-20"))
    assert isinstance(document, dict)
    return document


def config_of(job: dict[str, Any]) -> RerankConfig:
    """What its entrypoint asks for, through the command's own parser, with the config that docs/kubernetes.md
    makes a ConfigMap of.
    """
    bash, option, script = shlex.split(job["spec"]["entrypoint"])
    command, *accepted = script.split("; ")
    assert (bash, option) == ("bash", "-c")
    assert accepted == ["status=$?", "[ $status -eq 3 ] || exit $status"]
    options = options_of(shlex.split(command))
    assert not options.dry_run
    return load_config(ROOT / "configs/rerank/corpus.yaml", options.overrides)


def options_of(command: list[str]) -> argparse.Namespace:
    python, m, module, *arguments = command
    assert (python, m, module) == ("python", "-m", "pipeline.rerank")
    options = parse(arguments)
    assert str(options.config) == "/config/job.yaml"
    return options


def test_the_job_is_of_its_date() -> None:
    job = rayjob()
    assert job["metadata"]["name"] == "rerank-2026-11-20"
    config = config_of(job)
    assert config.output.path == "s3://search/reranked/2026-11-20/"
    assert config.reuse == "s3://search/reranked/{previous_run_date}/"
    assert config.input.path == "s3://search/candidates/2026-11-20/"


@pytest.mark.parametrize(
    "document",
    [
        *documents("shared.yaml"),
        *documents("rerank-nightly.yaml"),
        *documents("network-policy.yaml"),
        *documents("measure.yaml"),
        *documents("shell.yaml"),
    ],
    ids=lambda document: document["kind"],
)
def test_kubernetes_knows_every_field(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def rayservice() -> dict[str, Any]:
    [document] = documents("rerank-service.yaml")
    return document


def groups_of(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def groups() -> list[dict[str, Any]]:
    clusters = rayjob()["spec"]["rayClusterSpec"], rayservice()["spec"]["rayClusterConfig"]
    return [group for one in clusters for group in groups_of(one)]


@pytest.mark.parametrize("group", groups(), ids=lambda group: group.get("groupName", "head"))
def test_kubernetes_knows_every_field_of_the_pods(group: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@pytest.mark.parametrize("group", groups(), ids=lambda group: group.get("groupName", "head"))
def test_what_a_pod_asks_for_is_made_by_shared_yaml(group: dict[str, Any]) -> None:
    """But for the ConfigMap and the secret, which docs/kubernetes.md makes."""
    made = {(document["kind"], document["metadata"]["name"]) for document in documents("shared.yaml")}
    pod = group["template"]["spec"]
    [container] = pod["containers"]
    assert ("ServiceAccount", pod["serviceAccountName"]) in made
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claim = volumes["weights"]["persistentVolumeClaim"]["claimName"]
    assert ("PersistentVolumeClaim", claim) in made
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == volumes.keys()
    keys = {"name": "keys", "secret": {"secretName": "rerank-keys"}}
    assert container["envFrom"] == [{"secretRef": {"name": "rerank", "optional": True}}]  # without API keys
    assert (mounts.get("keys"), volumes.get("keys")) in [("/keys", keys), (None, None)]
    assert ("keys" in volumes) == (group in groups_of(rayservice()["spec"]["rayClusterConfig"]))
    assert {"name": "HF_HOME", "value": mounts["weights"]} in container["env"]
    assert ("config" in volumes) == (group["template"] == rayjob_head()["template"])
    assert pod["securityContext"]["fsGroup"] == IMAGE_GROUP


def test_the_pod_that_submits_is_where_the_head_is_and_takes_its_image() -> None:
    """KubeRay's default would be any machine, a spot one too; it fills in a command where there is none."""
    head, submitter = rayjob_head()["template"]["spec"], rayjob()["spec"]["submitterPodTemplate"]
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "PodTemplate", "template": submitter}, KUBERNETES, strict=True
    )
    pod = submitter["spec"]
    for field in ("nodeSelector", "serviceAccountName"):
        assert pod[field] == head[field]
    [container] = pod["containers"]
    assert container["image"] == head["containers"][0]["image"]
    assert pod["restartPolicy"] == "Never"
    assert "command" not in container


def test_the_speed_is_measured_where_an_actor_would_be() -> None:
    [measure], [shell] = documents("measure.yaml"), documents("shell.yaml")
    [worker] = [
        group["template"]["spec"]
        for group in rayjob()["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        if group["groupName"] == "gpu"
    ]
    pod = measure["spec"]
    for field in ("nodeSelector", "tolerations", "serviceAccountName", "securityContext"):
        assert pod[field] == worker[field]
    [of_worker], [container] = worker["containers"], pod["containers"]
    for field in ("image", "env", "envFrom", "resources"):
        assert container[field] == of_worker[field]
    config_volume = rayjob_head()["template"]["spec"]["volumes"][-1]
    assert pod["volumes"] == [*worker["volumes"], config_volume]
    options = options_of([*container["command"], *container["args"]])
    assert (options.dry_run, options.speed) == (True, "measure")
    config = load_config(ROOT / "configs/rerank/corpus.yaml", options.overrides)
    assert (config.input.path, config.input.success_file, config.reuse) == ("INPUT", None, None)
    [by_hand] = shell["spec"]["containers"]
    assert (by_hand["image"], by_hand["envFrom"]) == (of_worker["image"], of_worker["envFrom"])
    assert shell["spec"]["volumes"] == worker["volumes"]
    assert shell["spec"]["securityContext"]["fsGroup"] == IMAGE_GROUP


def test_what_watches_and_guards_the_pods_finds_them_by_kuberays_labels() -> None:
    """KubeRay names the port of Ray's exporter `metrics`, where a container names none itself."""
    [monitor], [policy] = documents("pod-monitor.yaml"), documents("network-policy.yaml")
    of_ray = {
        "matchExpressions": [{"key": "ray.io/node-type", "operator": "In", "values": ["head", "worker"]}]
    }
    assert monitor["spec"]["selector"] == policy["spec"]["podSelector"] == of_ray
    assert [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]
    assert not any("ports" in group["template"]["spec"]["containers"][0] for group in groups())
    everyone = [rule for rule in policy["spec"]["ingress"] if "from" not in rule]
    assert [port["port"] for rule in everyone for port in rule["ports"]] == [8000, 8080]
    submitter = rayjob()["spec"]["submitterPodTemplate"]["metadata"]["labels"]
    allowed = [where["podSelector"] for rule in policy["spec"]["ingress"] for where in rule.get("from", [])]
    assert {"matchLabels": submitter} in allowed


def rayjob_head() -> dict[str, Any]:
    head = rayjob()["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert isinstance(head, dict)
    return head


def node_types(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """As Ray's autoscaler reads a cluster, by default the job's."""
    spec = rayjob()["spec"]["rayClusterSpec"] if spec is None else spec
    cluster = {"metadata": {"name": "c", "namespace": "n"}, "spec": spec}
    config = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    types = config["available_node_types"]
    assert isinstance(types, dict)
    return types


def test_the_autoscaler_finds_room_for_every_actor_and_the_encoding() -> None:
    types, actors = node_types(), config_of(rayjob()).actors
    assert types["headgroup"]["resources"]["CPU"] == 0
    pod = types["gpu"]["resources"]
    actors_a_pod = pod["GPU"] // actors.num_gpus
    assert actors_a_pod * types["gpu"]["max_workers"] >= actors.max
    assert pod["CPU"] >= actors_a_pod * actors.num_cpus + 1
    assert types["cpu"]["resources"].get("GPU") is None


def test_nothing_is_kept_that_costs_money() -> None:
    assert {name: node["min_workers"] for name, node in node_types().items()} == dict.fromkeys(
        node_types(), 0
    )
    assert rayjob()["spec"]["shutdownAfterJobFinishes"] is True


def test_the_service_is_one_that_serve_takes_and_the_cluster_holds(tmp_path: Path) -> None:
    (tmp_path / "RAYRANK_API_KEYS").write_text("search:a-key-of-16-characters")  # the secret, in each pod
    text = rayservice()["spec"]["serveConfigV2"].replace("/keys/", f"{tmp_path}/")
    schema = ServeDeploySchema.model_validate(yaml.safe_load(text))
    [application] = schema.applications
    assert application.import_path == f"{build_app.__module__}:{build_app.__name__}"
    build_app(application.args)
    config = ServeConfig.model_validate(application.args)
    [model] = config.models.values()
    types = node_types(rayservice()["spec"]["rayClusterConfig"])
    api, gpu = types["api"], types["gpu"]
    assert api["min_workers"] * api["resources"]["CPU"] >= config.api.replicas * config.api.num_cpus
    assert gpu["min_workers"] == model.replicas.min
    assert gpu["max_workers"] * gpu["resources"]["GPU"] >= model.replicas.max * model.replicas.num_gpus
    assert gpu["resources"]["CPU"] >= model.replicas.num_cpus
    assert config.api.keys != "none"


def strict(schema: Any) -> Any:
    """A CRD's schema as the API server's strict validation takes it: other fields are refused."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(part) for key, part in schema.items()}
    known = isinstance(schema.get("properties"), dict) and "type" in schema
    open_to_more = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    return schema | {"additionalProperties": False} if known and not open_to_more else schema


@pytest.mark.skipif("KUBERAY_CRDS" not in os.environ, reason="KUBERAY_CRDS names no directory")
@pytest.mark.parametrize(
    ("kind", "document", "cluster"),
    [("rayjobs", rayjob(), "rayClusterSpec"), ("rayservices", rayservice(), "rayClusterConfig")],
)
def test_kuberay_knows_every_field(kind: str, document: dict[str, Any], cluster: str) -> None:
    crd = yaml.safe_load((Path(os.environ["KUBERAY_CRDS"]) / f"ray.io_{kind}.yaml").read_text())
    [schema] = [one["schema"]["openAPIV3Schema"] for one in crd["spec"]["versions"] if one["name"] == "v1"]
    schema["properties"]["metadata"]["additionalProperties"] = True  # Kubernetes' own
    validator = jsonschema.Draft202012Validator(strict(schema))
    assert [error.message for error in validator.iter_errors(document)] == []
    document["spec"][cluster]["enableInTreeAutoscalling"] = True
    assert not validator.is_valid(document)
