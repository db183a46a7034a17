"""Checks the custom resources in files of manifests against models made of their CRDs.

    python3 custom_resources.py FILE…

Exits with 1 when one does not hold, has a field that its CRD does not know, or is of a kind that nothing
here knows. Needs cloudcoil-models-cert-manager and cloudcoil-models-prometheus-operator.
"""

import sys

import yaml
from cloudcoil.models.cert_manager.v1 import Certificate
from cloudcoil.models.prometheus_operator.v1 import PodMonitor

MODELS = {
    ("cert-manager.io/v1", "Certificate"): Certificate,
    ("monitoring.coreos.com/v1", "PodMonitor"): PodMonitor,
}

# What Kubernetes itself serves, and kubernetes-validate knows.
BUILT_IN = {"v1", "apps", "autoscaling", "networking.k8s.io", "policy"}


def main(files):
    wrong = []
    checked = 0
    for file in files:
        with open(file, encoding="utf-8") as text:
            objects = [found for found in yaml.safe_load_all(text) if found]
        for found in objects:
            version, kind = found["apiVersion"], found["kind"]
            if version.split("/")[0] in BUILT_IN:
                continue
            what = f"{file}: {kind}/{found['metadata']['name']}"
            model = MODELS.get((version, kind))
            if model is None:
                wrong.append(f"{what}: nobody knows {version} {kind} here")
                continue
            checked += 1
            try:
                read = model.model_validate(found)
            except ValueError as error:
                wrong.append(f"{what}: {error}")
                continue
            # A model passes over what it does not know, and the API server drops it, or refuses it.
            known = read.model_dump(by_alias=True, exclude_unset=True, mode="json")
            strange = [f"{what}: {path} is unknown" for path in unknown(found, known)]
            wrong += strange
            if not strange:
                print(f"{what}: as its CRD says")
    if not checked:
        wrong.append("there is no custom resource in these files")
    for what in wrong:
        print(what, file=sys.stderr)
    return 1 if wrong else 0


def unknown(written, known, path=""):
    """Paths that are written and not known."""
    if isinstance(written, dict):
        for key, value in written.items():
            at = f"{path}.{key}"
            if not isinstance(known, dict) or key not in known:
                yield at
            else:
                yield from unknown(value, known[key], at)
    elif isinstance(written, list):
        for index, value in enumerate(written):
            yield from unknown(value, known[index], f"{path}[{index}]")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
