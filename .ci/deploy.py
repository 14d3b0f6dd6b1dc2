"""What files in config/deploy say, and what they say of each other; a part of .ci/deploy.

    deploy.py OUT      run in the root of the repository

Leaves in OUT what other programs check: the configuration as the kubelet mounts it, the context of the image, the
queries of the dashboard as rules, and the Prometheus configuration without what Debian's build does not know.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

DEPLOY = Path("config/deploy")
GUIDE = Path("docs/operating.md")
ROWS = ["Traffic in", "Deliveries", "Endpoints", "Queue", "Configuration", "Process"]
# The longest clean stop: requests under way, attempts, the queue's log. See run.rs, server.rs and dispatcher.rs.
STOP_SECONDS = 10 + 25 + 20
FINDINGS = []


def expect(holds, finding):
    if not holds:
        FINDINGS.append(finding)
    return holds


class Loader(yaml.SafeLoader):
    """YAML in which a key stands once."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in set(map(str, keys)):
            expect(list(map(str, keys)).count(key) == 1, f"{node.start_mark}: {key!r} stands there more than once")
        return super().construct_mapping(node, deep)


def load(path):
    return yaml.load((DEPLOY / path).read_text(), Loader)


# Metrics


def metrics():
    """The type of each metric."""
    types = {}
    for line in (DEPLOY / "prometheus/metrics.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, kind = line.split(" ")
            expect(name not in types, f"metrics.txt: {name} stands there twice")
            expect(kind in ("counter", "gauge", "histogram"), f"metrics.txt: {name}: unknown type {kind}")
            expect((kind == "counter") == name.endswith("_total"), f"metrics.txt: {name} is hardly a {kind}")
            types[name] = kind
    expect(list(types) == sorted(types), "metrics.txt: is not in order")
    return types


def names_in(query):
    """The metrics that a query reads."""
    query = re.sub(r'"(\\.|[^"\\])*"', '""', query)
    query = re.sub(r"\{[^}]*\}", "", query)
    query = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", query)
    names = re.findall(r"(?<![\w:$])[a-zA-Z_:][\w:]*(?!\s*\(|[\w:])", query)
    return {name for name in names if name == "up" or ":" in name or re.match("(aquarium|process)_", name)}


def check_query(where, query, types, recorded):
    names = names_in(query)
    expect(names, f"{where}: reads no metric: {query}")
    for name in names - recorded - {"up"}:
        base = re.sub("_(bucket|sum|count)$", "", name)
        if types.get(base) == "histogram":
            expect(base != name, f"{where}: {name} is a histogram, which has _bucket, _sum and _count")
        else:
            expect(name in types, f"{where}: unknown metric {name}")


# Prometheus


def prometheus(out, types):
    groups = load("prometheus/rules.yml")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    alerts = [rule["alert"] for rule in rules if "alert" in rule]
    for rule in rules:
        check_query(f"rules.yml: {rule.get('alert', rule.get('record'))}", rule["expr"], types, recorded)

    tests = load("prometheus/rules_test.yml")["tests"]
    for group in tests:
        for series in group["input_series"]:
            check_query(f"rules_test.yml: {group['name']}", series["series"], types, set())
    cases = [case for group in tests for case in group.get("alert_rule_test", [])]
    queried = " ".join(case["expr"] for group in tests for case in group.get("promql_expr_test", []))
    for alert in alerts:
        own = [case for case in cases if case["alertname"] == alert]
        expect(any(case["exp_alerts"] for case in own), f"rules_test.yml: {alert} never fires")
        expect(any(not case["exp_alerts"] for case in own), f"rules_test.yml: {alert} is never silent")
    for name in recorded:
        expect(name in queried, f"rules_test.yml: {name} is not tested")

    guide = GUIDE.read_text()
    headings = re.findall(r"^#+ (Aquarium\w+)$", guide, re.M)
    for rule in rules:
        if alert := rule.get("alert"):
            runbook = f"{GUIDE}#{alert.lower()}"
            expect(rule["annotations"].get("runbook") == runbook, f"rules.yml: {alert}: runbook is not {runbook}")
            expect(rule["labels"].get("severity") in ("critical", "warning"), f"rules.yml: {alert}: severity")
    expect(sorted(headings) == sorted(alerts), f"{GUIDE}: other alerts than in rules.yml: {set(headings) ^ set(alerts)}")
    for name in types:
        expect(f"`{name}`" in guide or f"`{name}{{" in guide, f"{GUIDE}: says nothing of {name}")
    for name in set(re.findall(r"`((?:aquarium|process)_[a-z_]+)[`{]", guide)):
        expect(name in types, f"{GUIDE}: unknown metric {name}")

    config = load("prometheus/prometheus.yml")
    for job in config["scrape_configs"]:
        # Debian's promtool is built without it.
        expect(job.pop("kubernetes_sd_configs", None) == [{"role": "pod"}], "prometheus.yml: does not find pods")
        job["static_configs"] = [{"targets": ["127.0.0.1:7879"]}]
    (out / "prometheus.yml").write_text(yaml.safe_dump(config))
    return recorded


# Grafana


def grafana(out, types, recorded):
    for path in sorted((DEPLOY / "grafana").glob("*.json")):
        dashboard = json.loads(path.read_text())
        name = path.name
        variables = {variable["name"] for variable in dashboard["templating"]["list"]}
        kinds = {variable["name"]: variable["type"] for variable in dashboard["templating"]["list"]}
        expect(kinds.get("datasource") == "datasource", f"{name}: no variable for the data source")
        expect("id" not in dashboard or dashboard["id"] is None, f"{name}: has the id of some Grafana")
        panels = dashboard["panels"]
        rows = [panel["title"] for panel in panels if panel["type"] == "row"]
        expect(rows == ROWS, f"{name}: rows are {rows}")
        ids = [panel["id"] for panel in panels]
        expect(len(ids) == len(set(ids)), f"{name}: an id stands there twice")
        queries, taken = [], {}
        for panel in panels:
            where = f"{name}: {panel['title']}"
            grid = panel["gridPos"]
            expect(grid["x"] + grid["w"] <= 24, f"{where}: is too wide")
            for cell in ((x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])):
                other = taken.setdefault(cell, panel["title"])
                if not expect(other == panel["title"], f"{where}: lies over {other}"):
                    break
            if panel["type"] == "row":
                continue
            refs = [target["refId"] for target in panel["targets"]]
            expect(refs and len(refs) == len(set(refs)), f"{where}: targets {refs}")
            for part in [panel, *panel["targets"]]:
                expect(part["datasource"]["uid"] == "${datasource}", f"{where}: has a data source of its own")
            queries += [(where, target["expr"]) for target in panel["targets"]]
        queries += [(f"{name}: {mark['name']}", mark["expr"]) for mark in dashboard["annotations"]["list"]]
        rules = []
        for number, (where, query) in enumerate(queries):
            for used in re.findall(r"\$\{?(\w+)", query):
                expect(used in variables or used in ("__rate_interval", "__range"), f"{where}: unknown variable {used}")
            query = re.sub(r"\[\$__\w+\]", "[5m]", query)
            check_query(where, query, types, recorded)
            rules.append({"record": f"query:{number}", "expr": query})
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                selector = re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"])
                if expect(selector, f"{name}: variable {variable['name']}"):
                    check_query(f"{name}: variable {variable['name']}", selector[1], types, recorded)
                    rules.append({"record": f"query:{variable['name']}", "expr": selector[1]})
        groups = {"groups": [{"name": "dashboard", "rules": rules}]}
        (out / f"{path.stem}_queries.yml").write_text(yaml.safe_dump(groups))


# Kubernetes


def kubernetes(out):
    folder = DEPLOY / "kubernetes"
    kustomization = load("kubernetes/kustomization.yaml")
    unknown = set(kustomization) - {"apiVersion", "kind", "resources", "images"}
    expect(not unknown, f"kustomization.yaml: {unknown} is not checked")
    files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    expect(set(kustomization["resources"]) == files, f"kustomization.yaml: {files} are there")

    found = {}
    for name in files:
        for document in yaml.load_all((folder / name).read_text(), Loader):
            key = (document["kind"], document["metadata"]["name"])
            expect(key not in found, f"{name}: {key} stands there twice")
            found[key] = document
    only = {kind: document for (kind, _), document in found.items()}
    workload = only["StatefulSet"]["spec"]
    labels = workload["template"]["metadata"]["labels"]
    for kind, selector in [
        ("StatefulSet", workload["selector"]["matchLabels"]),
        ("Service", only["Service"]["spec"]["selector"]),
        ("NetworkPolicy", only["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]),
    ]:
        expect(selector.items() <= labels.items(), f"{kind}: selects other pods")
    expect(workload["serviceName"] == only["Service"]["metadata"]["name"], "StatefulSet: another Service")

    mounted = mount(out / "mounted", workload["template"]["spec"], found)
    pod(workload, kustomization, mounted)


def pod(workload, kustomization, config):
    spec = workload["template"]["spec"]
    sidecars = [c for c in spec["initContainers"] if c["name"] == "aquarium-sidecar"]
    if not expect(len(sidecars) == 1, "StatefulSet: no init container aquarium-sidecar"):
        return
    sidecar = sidecars[0]
    containers = [*spec["initContainers"], *spec["containers"]]
    expect(sidecar.get("restartPolicy") == "Always", "StatefulSet: the sidecar is no native sidecar")
    grace = spec["terminationGracePeriodSeconds"]
    expect(grace > STOP_SECONDS, f"StatefulSet: stops after {grace} s, and a clean stop takes up to {STOP_SECONDS} s")
    volumes = {volume["name"] for volume in spec["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in workload["volumeClaimTemplates"]}
    images = {image["name"] for image in kustomization["images"]}
    for container in containers:
        name = container["name"]
        security = container["securityContext"]
        expect(security["allowPrivilegeEscalation"] is False, f"{name}: may escalate privileges")
        expect(security["readOnlyRootFilesystem"] is True, f"{name}: may write to its root")
        expect(security["capabilities"] == {"drop": ["ALL"]}, f"{name}: has capabilities")
        expect("memory" in container["resources"]["limits"], f"{name}: no limit of memory")
        expect(container["image"] in images, f"{name}: its image is not in kustomization.yaml")
        for mount_ in container.get("volumeMounts", []):
            expect(mount_["name"] in volumes, f"{name}: there is no volume {mount_['name']}")
            expect("subPath" not in mount_, f"{name}: a mount by subPath does not follow changes")
    security = spec["securityContext"]
    expect(security["runAsNonRoot"] is True, "StatefulSet: may run as root")
    expect(security["seccompProfile"] == {"type": "RuntimeDefault"}, "StatefulSet: no seccomp profile")
    user = f"USER {security['runAsUser']}:{security['runAsGroup']}"
    expect(user in (DEPLOY / "Dockerfile").read_text(), f"StatefulSet: the image does not say {user}")

    admin = config["admin"]["listen"]
    ports = {port["name"]: port["containerPort"] for port in sidecar["ports"]}
    expect(admin.rsplit(":", 1)[1] == str(ports["admin"]), f"StatefulSet: the admin listener is at {admin}")
    expect(not admin.startswith(("127.", "[::1]")), "StatefulSet: the kubelet does not reach a loopback listener")
    for probe, path in [("startupProbe", "/readyz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        get = sidecar[probe]["httpGet"]
        expect(get == {"path": path, "port": "admin"}, f"StatefulSet: {probe} asks for {get}")
    app = next(c for c in spec["containers"] if c["name"] == "app")
    url = next(variable["value"] for variable in app["env"] if variable["name"] == "AQUARIUM_URL")
    expect(url == f"http://{config['ingest']['listen']}", f"StatefulSet: the app posts to {url}")
    queue = Path(config["queue"]["path"]).parent
    paths = {mount_["mountPath"] for mount_ in sidecar["volumeMounts"]}
    expect(str(queue) in paths, f"StatefulSet: {queue} is no volume")


def mount(directory, spec, found):
    """Writes the projected volume as the kubelet does: files in a hidden directory, `..data` leads there, links to that."""
    volume = next(volume["projected"] for volume in spec["volumes"] if volume["name"] == "aquarium-config")
    hidden = directory / "..2026_01_01_00_00_00.1"
    for source in volume["sources"]:
        ((kind, reference),) = source.items()
        document = found[{"configMap": "ConfigMap", "secret": "Secret"}[kind], reference["name"]]
        data = document.get("data" if kind == "configMap" else "stringData", {})
        items = {item["key"]: item["path"] for item in reference["items"]}
        expect(items.keys() == data.keys(), f"{kind}: has {sorted(data)}, and {sorted(items)} are mounted")
        for key, path in items.items():
            file = hidden / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(data.get(key, ""))
            file.chmod(volume["defaultMode"])
    (directory / "..data").symlink_to(hidden.name)
    for entry in sorted(hidden.iterdir()):
        (directory / entry.name).symlink_to(f"..data/{entry.name}")
    for path in directory.glob("organizations/*.toml"):
        tomllib.loads(path.read_text())
    return tomllib.loads((directory / "aquarium.toml").read_text())


# The image, and the unit


def context(out):
    """Copies what .dockerignore leaves of the files in git: what the image is built from."""
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    expect(lines[0] == "*" and lines[-1] == "**/target", "Dockerfile.dockerignore: begins with *, ends with **/target")
    taken = [line[1:] for line in lines[1:-1] if line.startswith("!")]
    expect(len(taken) == len(lines) - 2, "Dockerfile.dockerignore: in between is what is taken, each with a !")
    expect(not {"config", "target", ".git"} & set(taken), "Dockerfile.dockerignore: takes what may hold secrets")
    listed = subprocess.run(["git", "ls-files", "-z", *taken], check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        copy = out / "context" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(name, copy)
    for path in (out / "context").rglob("*.rs"):
        for included in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', path.read_text()):
            expect((path.parent / included).exists(), f"Dockerfile.dockerignore: {path.name} includes {included}")


def unit():
    for path in (DEPLOY / "systemd").glob("*.service"):
        text = path.read_text()
        settings = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))
        stop = int(settings["TimeoutStopSec"])
        expect(stop > STOP_SECONDS, f"{path.name}: is killed after {stop} s; a clean stop takes up to {STOP_SECONDS} s")
        expect(settings["ExecReload"] == "/bin/kill -HUP $MAINPID", f"{path.name}: ExecReload")
        expect(settings["ExecStart"].startswith("/usr/local/bin/aquarium-sidecar run"), f"{path.name}: ExecStart")
        # `run` exits with it when the configuration is bad.
        expect("78" in settings["RestartPreventExitStatus"].split(), f"{path.name}: goes on starting with a bad configuration")


def sockets():
    doors = {}
    for path in (DEPLOY / "systemd").glob("*.socket"):
        settings = dict(line.split("=", 1) for line in path.read_text().splitlines() if re.match(r"\w+=", line))
        door = settings["FileDescriptorName"]
        expect(path.stem == f"aquarium-sidecar-{door}", f"{path.name}: is for {door}")
        expect((DEPLOY / "systemd" / settings["Service"]).exists(), f"{path.name}: there is no {settings['Service']}")
        expect(settings.get("Accept", "no") == "no", f"{path.name}: the sidecar accepts by itself")
        doors[door] = settings["ListenStream"]
    defaults = {"ingest": "127.0.0.1:7878", "admin": "127.0.0.1:7879"}
    expect(doors == defaults, f"sockets are at {doors}, and listeners by default at {defaults}")


def main():
    os.umask(0o022)
    out = Path(sys.argv[1])
    types = metrics()
    recorded = prometheus(out, types)
    grafana(out, types, recorded)
    kubernetes(out)
    context(out)
    unit()
    sockets()
    for finding in FINDINGS:
        print(f"error: {finding}", file=sys.stderr)
    return 1 if FINDINGS else 0


sys.exit(main())
