"""What the deploy suite needs to know of YAML.

    manifests.py json OVERLAY          the objects of deploy/k8s/overlays/OVERLAY as JSON
    manifests.py expressions           every PromQL expression of alerts and dashboard as JSON
    manifests.py check VARVE           checks every overlay and every variant of the chart

An object is checked against the models of the Kubernetes API that the package `kubernetes` has, strictly: no field
that the API does not know, no missing one, no other type. Then against itself: names and ports that something refers to
exist, and the node's configuration is one that the binary VARVE accepts. `kustomize` is a small part of the real one,
compared with it where kubectl is installed.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import jsonschema
import yaml
from kubernetes import client as models

import chart

DEPLOY = pathlib.Path(__file__).resolve().parent.parent.parent / "deploy"
KINDS = {
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "Pod"): "V1Pod",
    ("v1", "Service"): "V1Service",
    ("v1", "ServiceAccount"): "V1ServiceAccount",
    ("apps/v1", "StatefulSet"): "V1StatefulSet",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
}


# --- kustomize -----------------------------------------------------------------------------------------------------


def documents(path):
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


def kustomize(folder):
    """Objects of a folder: resources, a namespace, replicas, JSON patches, and config maps from files."""
    spec = documents(folder / "kustomization.yaml")[0]
    known = {"apiVersion", "kind", "resources", "namespace", "replicas", "patches", "configMapGenerator"}
    assert set(spec) <= known, f"{folder.name}: not known here: {set(spec) - known}"
    objects = []
    for resource in spec["resources"]:
        path = folder / resource
        objects += kustomize(path) if path.is_dir() else documents(path)
    for made in spec.get("configMapGenerator", []):
        data = {name: (folder / name).read_text() for name in made["files"]}
        metadata = {"name": made["name"]}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    for patch in spec.get("patches", []):
        found = [o for o in objects if named(o) == (patch["target"]["kind"], patch["target"]["name"])]
        assert found, f"{folder.name}: a patch has no target: {patch['target']}"
        for op in yaml.safe_load(patch["patch"]):
            apply(found[0], op)
    for scaled in spec.get("replicas", []):
        for each in objects:
            if named(each) == ("StatefulSet", scaled["name"]):
                each["spec"]["replicas"] = scaled["count"]
    if "namespace" in spec:
        for each in objects:
            key = "name" if each["kind"] == "Namespace" else "namespace"
            each["metadata"][key] = spec["namespace"]
    return objects


def named(thing):
    return thing["kind"], thing["metadata"]["name"]


def apply(thing, op):
    *path, last = op["path"].strip("/").split("/")
    for step in path:
        thing = thing[int(step) if isinstance(thing, list) else step]
    if isinstance(thing, list):
        last = len(thing) if last == "-" else int(last)
    if op["op"] == "test":
        assert thing[last] == op["value"], f"{op['path']} is {thing[last]!r}"
    elif op["op"] == "replace":
        assert thing[last] is not None
        thing[last] = op["value"]
    elif op["op"] == "add" and isinstance(thing, list):
        thing.insert(last, op["value"])
    elif op["op"] == "add":
        thing[last] = op["value"]
    else:
        raise AssertionError(f"not known here: {op['op']}")


def compare_with_kubectl(folder, ours):
    """The real tool gives the same objects, but for the hash in the names of config maps."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text = re.sub(r"\bvarve-config-[a-z0-9]{10}\b", "varve-config", done.stdout)
    theirs = [d for d in yaml.safe_load_all(text) if d]
    key = lambda o: (o["kind"], o["metadata"]["name"])
    assert sorted(theirs, key=key) == sorted(ours, key=key), f"{folder.name}: kubectl kustomize differs"


# --- the API's models ----------------------------------------------------------------------------------------------


def typed(value, kind, where):
    """Builds `value` as `kind`, which fails where the API would."""
    # Older versions of the package write list[X] and dict(str, X).
    kind = re.sub(r"^dict\((.*)\)$", r"dict[\1]", kind[:1].lower() + kind[1:] if kind[:5] in ("List[", "Dict[") else kind)
    if kind.startswith("list["):
        assert isinstance(value, list), f"{where} is no list"
        return [typed(v, kind[5:-1], f"{where}[{i}]") for i, v in enumerate(value)]
    if kind.startswith("dict["):
        assert isinstance(value, dict), f"{where} is no map"
        inner = kind[5:-1].split(", ", 1)[1]
        return {k: typed(v, inner, f"{where}.{k}") for k, v in value.items()}
    plain = {"str": str, "int": int, "bool": bool, "float": (int, float)}.get(kind)
    if plain:
        right = isinstance(value, plain) and (kind == "bool" or not isinstance(value, bool))
        assert right, f"{where} = {value!r} is no {kind}"
        return value
    if kind in ("object", "datetime"):
        return value
    model = getattr(models, kind)
    assert isinstance(value, dict), f"{where} is no {kind}"
    names = {wire: name for name, wire in model.attribute_map.items()}
    unknown = set(value) - set(names)
    assert not unknown, f"{where}: {kind} has no {sorted(unknown)}"
    given = {names[k]: typed(v, model.openapi_types[names[k]], f"{where}.{k}") for k, v in value.items()}
    try:
        return model(**given)
    except ValueError as error:
        raise AssertionError(f"{where}: {error}") from None


def check_object(thing):
    where = "/".join(named(thing))
    if thing["kind"] == "ServiceMonitor":
        # The operator's own kind: its models are in no package.
        assert thing["apiVersion"] == "monitoring.coreos.com/v1"
        assert set(thing["spec"]) == {"selector", "endpoints"}, where
        assert all(set(e) == {"port", "path", "interval"} for e in thing["spec"]["endpoints"]), where
        return
    typed(thing, KINDS[(thing["apiVersion"], thing["kind"])], where)
    name = thing["metadata"]["name"]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name), where
    for value in thing["metadata"].get("labels", {}).values():
        assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", value), f"{where}: label {value!r}"


# --- what refers to what -------------------------------------------------------------------------------------------


def check_together(objects, varve, where):
    by_kind = {}
    for each in objects:
        check_object(each)
        by_kind.setdefault(each["kind"], []).append(each)
    names = [named(o) for o in objects]
    assert len(names) == len(set(names)), f"{where}: two objects of one name"
    (nodes,) = by_kind["StatefulSet"]
    spec, pod = nodes["spec"], nodes["spec"]["template"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    container = pod["containers"][0]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    fits = lambda selector: selector.items() <= labels.items()
    assert fits(spec["selector"]["matchLabels"]), where
    for service in by_kind["Service"]:
        selector = {k: v for k, v in service["spec"]["selector"].items() if not k.startswith("statefulset.")}
        assert fits(selector), f"{where}: {named(service)} selects no node"
        for port in service["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"], f"{where}: {named(service)}"
            assert port["targetPort"] != "peer" or service["spec"].get("clusterIP") == "None", "the peer port is exposed"
    for budget in by_kind["PodDisruptionBudget"]:
        assert fits(budget["spec"]["selector"]["matchLabels"]), where
    for policy in by_kind.get("NetworkPolicy", []):
        assert fits(policy["spec"]["podSelector"]["matchLabels"]), where
        for rule in policy["spec"]["ingress"]:
            open_ports = {p["port"] for p in rule["ports"]}
            assert open_ports <= set(ports), where
            assert "peer" not in open_ports or all(fits(f["podSelector"]["matchLabels"]) for f in rule["from"]), where
    (headless,) = [s for s in by_kind["Service"] if s["metadata"]["name"] == spec["serviceName"]]
    assert headless["spec"]["clusterIP"] == "None" and headless["spec"]["publishNotReadyAddresses"] is True, where
    assert spec["podManagementPolicy"] == "Parallel" and pod["enableServiceLinks"] is False, where
    for monitor in by_kind.get("ServiceMonitor", []):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= headless["metadata"]["labels"].items(), where
    check_pod(pod, spec, by_kind, where)
    for test in by_kind.get("Pod", []):
        selected = {k: test["metadata"]["labels"].get(k) for k in spec["selector"]["matchLabels"]}
        assert selected != spec["selector"]["matchLabels"], f"{where}: the test pod looks like a node"
    check_configuration(nodes, by_kind, varve, where)


def check_pod(pod, spec, by_kind, where):
    container = pod["containers"][0]
    ports = {p["name"] for p in container["ports"]}
    for probe, path in (("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        get = container[probe]["httpGet"]
        assert get["path"] == path and get["port"] in ports, f"{where}: {probe}"
    # A look at liveness may take five seconds (the node's own bound) before it says no.
    assert container["livenessProbe"]["timeoutSeconds"] > 5, where
    volumes = [v["name"] for v in pod["volumes"]]
    volumes += [c["metadata"]["name"] for c in spec.get("volumeClaimTemplates", [])]
    assert len(volumes) == len(set(volumes)), f"{where}: two volumes of one name"
    for mount in container["volumeMounts"]:
        assert mount["name"] in volumes, f"{where}: no volume {mount['name']}"
    assert {m["name"] for m in container["volumeMounts"]} >= {"data", "config"}, where
    maps = {c["metadata"]["name"] for c in by_kind["ConfigMap"]}
    assert all(v["configMap"]["name"] in maps for v in pod["volumes"] if "configMap" in v), where
    own, whole = container["securityContext"], pod["securityContext"]
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"], where
    assert own["capabilities"]["drop"] == ["ALL"] and whole["runAsNonRoot"] and whole["runAsUser"] == 65532, where
    assert "limits" in container["resources"], where
    requested = container["resources"].get("requests", {}).get("memory")
    assert requested in (None, container["resources"]["limits"]["memory"]), where


def variables(nodes, ordinal, namespace):
    """Environment of a pod, as the kubelet makes it: a reference sees what stands before it."""
    fields = {"metadata.name": f"{nodes['metadata']['name']}-{ordinal}", "metadata.namespace": namespace}
    out = {}
    for entry in nodes["spec"]["template"]["spec"]["containers"][0]["env"]:
        if "valueFrom" in entry:
            out[entry["name"]] = fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            expand = lambda m: out.get(m[1], m[0])
            out[entry["name"]] = re.sub(r"\$\(([A-Za-z0-9_]+)\)", expand, entry["value"])
            assert "$(" not in out[entry["name"]], entry
    return out


def effective(varve, toml, env, ordinal):
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(toml)
        file.flush()
        # The host's name is not the pod's here.
        argv = [varve, "config", "show", "-c", file.name, "--node-id", str(ordinal), "-o", "json"]
        plain = {k: v for k, v in os.environ.items() if not k.startswith("VARVE_")}
        for command in (argv[:2] + ["check"] + argv[3:-2], argv):
            done = subprocess.run(command, env={**plain, **env}, capture_output=True, text=True)
            assert done.returncode == 0, f"{done.stderr}\n{toml}"
    return {e["key"]: e["value"] for e in json.loads(done.stdout)}


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def check_configuration(nodes, by_kind, varve, where):
    spec, pod = nodes["spec"], nodes["spec"]["template"]["spec"]
    (config,) = by_kind["ConfigMap"]
    container = pod["containers"][0]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert container["args"] == ["server", "-c", mounts["config"] + "/varve.toml"], where
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    namespace = nodes["metadata"].get("namespace", "default")
    replicas = spec["replicas"]
    for ordinal in range(replicas):
        env = variables(nodes, ordinal, namespace)
        keys = effective(varve, config["data"]["varve.toml"], env, ordinal)
        for port, key in (("client", "listeners.client"), ("peer", "listeners.peer"), ("http", "http")):
            assert keys[f"{key}.address"].endswith(f":{ports[port]}"), f"{where}: {key}"
        if keys.get("listeners.kafka.address"):
            assert keys["listeners.kafka.address"].endswith(f":{ports['kafka']}"), where
            told, own = keys["listeners.kafka.advertised_address"], keys["listeners.client.advertised_address"]
            assert told == own.rsplit(":", 1)[0] + f":{ports['kafka']}", f"{where}: {told}"
            assert all(keys[f"listeners.kafka.tls.{k}"] == keys[f"listeners.client.tls.{k}"] for k in ("mode", "cert", "key", "ca"))
        assert keys["node.id_from"] == "hostname", where
        assert keys["storage.data_dir"].startswith(mounts["data"] + "/"), where
        total = seconds(keys["shutdown.timeout"])
        assert pod["terminationGracePeriodSeconds"] >= total + 10, where
        seeds = [s for s in keys["cluster.seeds"].split(",") if s]
        assert len(seeds) == (0 if replicas == 1 else 3), f"{where}: {seeds}"
        if seeds:
            assert keys["cluster.bootstrap_expect"] == "3", where
            own = keys["listeners.peer.advertised_address"]
            name = f"{nodes['metadata']['name']}-{ordinal}.{spec['serviceName']}.{namespace}.svc."
            assert own.startswith(name) and own.endswith(f":{ports['peer']}"), f"{where}: {own}"
            assert (own in seeds) == (ordinal < 3), f"{where}: {own} and {seeds}"
        for key, value in keys.items():
            if ".tls." in key and not key.endswith(".mode") and value:
                folder = value.rsplit("/", 1)[0]
                assert folder in mounts.values(), f"{where}: nothing is mounted for {key} = {value}"
                assert ".crt" in value or ".key" in value, value


# --- commands ------------------------------------------------------------------------------------------------------


def the_check_refuses():
    """What the check is worth: one mistake of each sort is found."""
    load = lambda: documents(DEPLOY / "k8s/base/statefulset.yaml")[0]
    spoilt = []
    for path, value in (("spec/replica", 3), ("spec/replicas", "3"), ("spec/selector", None),
                        ("spec/template/spec/containers/0/name", None),
                        ("spec/template/spec/containers/0/readinessProbe/httpGet/port", None),
                        ("spec/template/spec/containers/0/args", "server")):
        spoilt.append(load())
        *steps, last = path.split("/")
        into = spoilt[-1]
        for step in steps:
            into = into[int(step) if isinstance(into, list) else step]
        if value is None:
            del into[last]
        else:
            into[last] = value
    check_object(load())
    for number, thing in enumerate(spoilt):
        try:
            check_object(thing)
        except AssertionError:
            continue
        raise SystemExit(f"mistake {number} was not found")


def check(varve):
    the_check_refuses()
    for overlay in sorted((DEPLOY / "k8s/overlays").iterdir()):
        objects = kustomize(overlay)
        check_together(objects, varve, overlay.name)
        if shutil.which("kubectl"):
            compare_with_kubectl(overlay, objects)
            print(f"{overlay.name}: the same by kubectl")
        print(f"{overlay.name}: {len(objects)} objects")
    assert kustomize(DEPLOY / "k8s") == kustomize(DEPLOY / "k8s/overlays/prod-3node")
    for each in documents(DEPLOY / "k8s/base/servicemonitor.yaml"):
        check_object(each)
    check_chart(varve)
    check_compose(varve)
    print("ok")


def check_chart(varve):
    ours = chart.Chart(DEPLOY / "helm/varve")
    schema = json.loads((DEPLOY / "helm/varve/values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    accepts = lambda values: jsonschema.Draft7Validator(schema).is_valid(chart.merged(ours.values, values))
    assert accepts({})
    assert set(schema["properties"]) - {"global"} == set(ours.values), "schema and values name different things"
    for bad in ({"replicaCount": 2}, {"replicaCounts": 3}, {"tls": {"enable": True}}, {"config": {"num.partitions": 6}},
                {"terminationGracePeriodSeconds": 30}, {"podAntiAffinity": {"type": "firm"}},
                {"listeners": {"client": {"port": 0}}}, {"persistence": {"size": "much"}}):
        assert not accepts(bad), bad
    try:
        ours.render({})
        raise AssertionError("the chart serves plaintext though nobody said so")
    except chart.Failed as refused:
        assert "tls.enabled=false" in str(refused), refused
    for variant in sorted((DEPLOY / "helm/varve/ci").glob("*-values.yaml")):
        values = yaml.safe_load(variant.read_text())
        jsonschema.validate(chart.merged(ours.values, values), schema)
        for release in ("varve", "blue"):
            files = ours.render(values, release, "default")
            assert files.pop("templates/NOTES.txt").strip()
            objects = [d for text in files.values() for d in yaml.safe_load_all(text) if d]
            check_together(objects, varve, f"chart {variant.name}")
        print(f"chart {variant.name}: {len(objects)} objects")


def check_compose(varve):
    for name in ("docker-compose.yml", "single.yml"):
        services = documents(DEPLOY / "compose" / name)[0]["services"]
        nodes = {k: s for k, s in services.items() if s.get("command") == ["server"]}
        assert len(nodes) == (1 if name == "single.yml" else 3)
        for ordinal, (service, spec) in enumerate(nodes.items()):
            keys = effective(varve, "", spec["environment"], ordinal)
            assert spec["hostname"] == f"varve-{ordinal}" and spec["read_only"] is True, service
            assert seconds(spec["stop_grace_period"]) > seconds(keys["shutdown.timeout"]), service
            address = keys["listeners.client.advertised_address"]
            port = address.rsplit(":", 1)[1]
            assert keys["listeners.client.address"].endswith(f":{port}"), service
            assert f"{port}:{port}" in spec["ports"], service
            if name != "single.yml":
                own = keys["listeners.peer.advertised_address"]
                assert own == f"{service}:8279" and own in keys["cluster.seeds"].split(","), service
        print(f"compose {name}: {len(nodes)} nodes")


def expressions():
    out = []
    for group in documents(DEPLOY / "prometheus/alerts.yaml")[0]["groups"]:
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule
            assert rule["labels"]["severity"] in ("critical", "warning"), rule
            assert set(rule["annotations"]) == {"summary", "action"}, rule
            out.append([rule["alert"], rule["expr"]])
    board = json.loads((DEPLOY / "grafana/varve.json").read_text())
    ids = [p["id"] for p in board["panels"]]
    assert len(ids) == len(set(ids)), "two panels of one id"
    for panel in board["panels"]:
        out += [[panel["title"], target["expr"]] for target in panel.get("targets", [])]
    return out


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "json":
        print(json.dumps(kustomize(DEPLOY / "k8s/overlays" / rest[0])))
    elif command == "expressions":
        print(json.dumps(expressions()))
    elif command == "check":
        check(rest[0])
    else:
        sys.exit(__doc__)
