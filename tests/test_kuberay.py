"""The manifests of configs/kuberay against Kubernetes' schemas, Ray's autoscaler and this project's own code.

KubeRay's own schemas come in no package. KUBERAY_CRDS may name a directory with its ray.io_*.yaml
(helm-chart/kuberay-operator/crds of its repository).
"""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay import autoscaling_config
from ray.serve.schema import ServeDeploySchema

from pipeline.reporting import metrics
from pipeline.rerank import parse
from pipeline.reranking.config import RerankConfig, load_config
from serve import metrics as serve_metrics
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
    command, accepted = script.split(" || ")
    python, m, module, *arguments = shlex.split(command)
    assert (bash, option, accepted) == ("bash", "-c", "test $? -eq 3")
    assert (python, m, module) == ("python", "-m", "pipeline.rerank")
    options = parse(arguments)
    assert not options.dry_run
    assert str(options.config) == "/config/job.yaml"
    return load_config(ROOT / "configs/rerank/corpus.yaml", options.overrides)


def test_alerts_are_on_metrics_that_there_are() -> None:
    [rule] = documents("alerts.yaml")
    rules = [each for group in rule["spec"]["groups"] for each in group["rules"]]
    alerts = [each for each in rules if "alert" in each]
    assert {alert["labels"]["severity"] for alert in alerts} == {"critical", "warning"}
    assert len(alerts) == 8
    texts = [each["expr"] for each in rules]
    recorded = {name for text in texts for name in re.findall(r"\brerank:[\w:]+", text)}
    assert recorded == {each["record"] for each in rules if "record" in each}
    named = {name for text in texts for name in re.findall(r"ray_(rayrank_\w+)", text)}
    assert {metrics.REJECTED, "rayrank_shards_quarantined", "rayrank_requests_total"} < named
    assert named <= {metrics.REJECTED, *metrics.GAUGES, *serve_metrics.COUNTERS}
    for text in texts:
        assert text.count("(") == text.count(")")
    [nightly] = [each for each in documents("rerank-nightly.yaml") if each["kind"] == "CronJob"]
    crons = {name for text in texts for name in re.findall(r'cronjob="([^"]+)"', text)}
    assert crons == {nightly["metadata"]["name"]}


def test_a_late_night_is_told_by_the_date_in_its_jobs_name() -> None:
    """Not by the time at which any job ended: nights and backfills overlap."""
    [rule] = documents("alerts.yaml")
    [group] = rule["spec"]["groups"]
    [late] = [each["expr"] for each in group["rules"] if each.get("alert") == "RerankNightLate"]
    [(replacement, pattern)] = re.findall(r'"date", "([^"]+)", "job_name", "([^"]+)"', late)
    match = re.fullmatch(pattern, rayjob()["metadata"]["name"])  # Prometheus anchors it at both ends
    assert match is not None
    assert match.expand(re.sub(r"\$(\d)", r"\\\1", replacement)) == "20261120"
    assert 'count_values("date", year(' in late  # the same number, from the scheduled time
    assert re.findall(r"(\w+)\(rerank:last_night:time\)", late) == ["year", "month", "day_of_month"]


def test_the_job_is_of_its_date() -> None:
    job = rayjob()
    assert job["metadata"]["name"] == "rerank-2026-11-20"
    config = config_of(job)
    assert config.output.path == "s3://search/reranked/2026-11-20/"
    assert config.reuse == "s3://search/reranked/{previous_run_date}/"
    assert config.input.path == "s3://search/candidates/2026-11-20/"


@pytest.mark.parametrize(
    "document",
    [*documents("shared.yaml"), *documents("rerank-nightly.yaml"), *documents("network-policy.yaml")],
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


def nightly_script(
    path: Path, annotation: str, rayjobs: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The CronJob's script, with a kubectl that tells the annotation and the RayJobs, and keeps what is
    applied and deleted.
    """
    (path / "rayjobs").write_text("".join(f"{line}\n" for line in rayjobs))
    (path / "kubectl").write_text(
        f"""#!/bin/sh
case "$1 $2" in
    "get job") echo "{annotation}";;
    "get rayjobs") cat {path}/rayjobs;;
    "apply -f") cat > {path}/applied;;
    *) echo "$@" > {path}/deleted;;
esac
"""
    )
    (path / "kubectl").chmod(0o755)
    [cronjob, *_] = documents("rerank-nightly.yaml")
    [container] = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    script = container["args"][0].replace("/manifests", str(MANIFESTS))
    environment = {"PATH": f"{path}:{os.environ['PATH']}", "JOB": "rerank-nightly-29391300"}
    return subprocess.run(
        [*container["command"], script], env=environment, capture_output=True, text=True, check=False
    )


def test_the_nightly_job_applies_the_date_that_was_scheduled(tmp_path: Path) -> None:
    done = nightly_script(tmp_path, "2026-11-20T03:00:00Z")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "applied").read_text()) == rayjob()


def test_the_rayjobs_that_ended_long_ago_are_deleted(tmp_path: Path) -> None:
    ended = [f"2026-11-{day:02}T05:00:00Z   rerank-2026-11-{day:02}" for day in range(1, 18)]
    late = "2026-11-18T02:00:00Z   rerank-2026-01-01"  # an old date, done lately
    running = "<none>                 rerank-2025-12-31"
    done = nightly_script(tmp_path, "2026-11-20T03:00:00Z", (running, *ended, late))
    assert done.returncode == 0, done.stderr
    deleted = (tmp_path / "deleted").read_text().split()
    assert deleted == [
        *("delete", "rayjobs", "--wait=false"),
        *(f"rerank-2026-11-{day:02}" for day in (4, 3, 2, 1)),
    ]
    (tmp_path / "deleted").unlink()
    done = nightly_script(tmp_path, "2026-11-20T03:00:00Z", (running, *ended[:14]))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "deleted").exists()


def test_a_job_that_no_schedule_made_is_refused(tmp_path: Path) -> None:
    done = nightly_script(tmp_path, "")
    [cronjob, *_] = documents("rerank-nightly.yaml")
    [rule] = cronjob["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [done.returncode])
    assert done.returncode == 2
    assert "no schedule behind this job" in done.stderr
    assert not (tmp_path / "applied").exists()


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
