"""A stand-in for a kubelet: pods with the containers, volumes and order of beginning and ending that a manifest says.

The containers of a pod share the network of one more, which does nothing and outlives the others. Probes
come from outside the pod, hooks run inside.
"""

import json
import os
import subprocess
import threading
import time

import volumes
from checks import Broken, expect, until
from commands import run
from containers import Container

# Of a pod: those that are looked at, and those that mean nothing with one node.
KNOWN = {"containers", "initContainers", "volumes", "securityContext", "terminationGracePeriodSeconds"}
KNOWN |= {"automountServiceAccountToken", "enableServiceLinks"}
MEANINGLESS = {"serviceAccountName", "topologySpreadConstraints", "affinity", "nodeSelector", "priorityClassName"}
MEANINGLESS |= {"restartPolicy", "dnsPolicy", "schedulerName", "tolerations"}
SECURITY = {"runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup", "fsGroupChangePolicy", "supplementalGroups"}
SECURITY |= {"seccompProfile", "sysctls"}
# Where the container that does nothing listens, on loopback.
IDLE_PORT = 65535


class Node:
    """Where pods run: a network of Docker, the images by the names of the manifests, and a folder."""

    def __init__(self, prefix, network, gateway, images, folder):
        self.prefix, self.network, self.gateway = prefix, network, gateway
        self.images, self.folder = images, folder
        # ConfigMaps and Secrets by (kind, namespace, name), and variables for every pod of a namespace.
        self.sources = {}
        self.links = {}
        self.pods = []
        self.users = {}
        # What ends from now on is not looked after.
        self.is_closing = False
        self.logs = os.path.join(folder, "logs")
        os.makedirs(self.logs, exist_ok=True)

    def image(self, name):
        """Ours for what the manifest calls it, with whichever tag or digest."""
        repository = name.split("@")[0].rsplit(":", 1)[0] if ":" in name.rsplit("/", 1)[-1] else name.split("@")[0]
        found = self.images.get(repository.rsplit("/", 1)[-1])
        expect(found, f"no image for {name}")
        return found

    def user_of(self, name):
        image = self.image(name)
        if image not in self.users:
            self.users[image] = run("docker", "image", "inspect", "--format={{.Config.User}}", image).strip()
        return self.users[image]

    def labels(self, pod, container):
        labels = {"evenkeel-pod-story": self.prefix, "pod": pod.name, "container": container}
        return [f"--label={key}={value}" for key, value in labels.items()]

    def resolver(self, namespace):
        """A resolv.conf as pods have it."""
        path = os.path.join(self.folder, f"resolv.{namespace}.conf")
        text = f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local\n"
        text += f"nameserver {self.gateway}\noptions ndots:5\n"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o644)
        return path

    def keep_log(self, container, id):
        path = os.path.join(self.logs, f"{container.pod.name}.{container.name}.{container.attempt}.log")
        with open(path, "wb") as file:
            file.write(output("docker", "logs", "--timestamps", id))

    def said(self, container):
        """All that it has written so far, over all of its lives."""
        texts = []
        for attempt in range(1, container.attempt + 1):
            path = os.path.join(self.logs, f"{container.pod.name}.{container.name}.{attempt}.log")
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    texts.append(file.read())
        if container.running:
            texts.append(output("docker", "logs", container.id).decode(errors="replace"))
        return "\n".join(texts)

    def close(self):
        """Ends everything at once; what it said is kept."""
        self.is_closing = True
        for pod in self.pods:
            for container in pod.inits + pod.mains:
                if container.running:
                    self.keep_log(container, container.id)
        ids = run("docker", "ps", "-aq", f"--filter=label=evenkeel-pod-story={self.prefix}").split()
        if ids:
            run("docker", "rm", "--force", "--volumes", *ids, check=False)

    def update(self, source):
        """Takes a ConfigMap or Secret, and brings it to the pods that mount it."""
        meta = source["metadata"]
        self.sources[source["kind"], meta["namespace"], meta["name"]] = source
        for pod in self.pods:
            if pod.namespace == meta["namespace"] and not pod.ended.is_set():
                pod.swap(source)


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False).stdout


class Pod:
    def __init__(self, node, name, namespace, template):
        self.node, self.name, self.namespace = node, name, namespace
        self.labels = template["metadata"].get("labels", {})
        self.spec = spec = template["spec"]
        unknown = spec.keys() - KNOWN - MEANINGLESS
        expect(not unknown, f"{name}: not provided for: {sorted(unknown)}")
        security = spec.get("securityContext", {})
        expect(not security.keys() - SECURITY, f"{name}: not provided for: {sorted(security.keys() - SECURITY)}")
        # There is nobody whom a token would be good for.
        expect(spec.get("automountServiceAccountToken") is False, f"{name} asks for a token")
        self.grace = spec.get("terminationGracePeriodSeconds", 30)
        self.inits = [Container(self, s, is_init=True) for s in spec.get("initContainers", [])]
        self.mains = [Container(self, s) for s in spec["containers"]]
        self.sidecars = [c for c in self.inits if c.is_sidecar]
        self.sandbox = self.address = None
        self.folder = os.path.join(node.folder, "pods", name)
        self.swapped = {}
        # Times: it was ready first, it was told to go, it was gone.
        self.first_ready = self.deleted = self.gone = None
        self.trouble = None
        self.ended = threading.Event()
        node.pods.append(self)
        threading.Thread(target=self.begin, daemon=True).start()

    def __str__(self):
        return self.name

    def container(self, name):
        (found,) = (c for c in self.inits + self.mains if c.name == name)
        return found

    def is_ready(self):
        """Does everybody in it say so who lives as long as it does?"""
        expect(self.trouble is None, f"{self}: {self.trouble}")
        if self.address is None or not all(c.ready for c in self.sidecars + self.mains):
            return False
        self.first_ready = self.first_ready or time.time()
        return True

    # --- begin

    def begin(self):
        try:
            self.open_sandbox()
            self.make_volumes()
            for container in self.inits:
                container.start()
                if container.is_sidecar:
                    until(f"{container} has started", lambda c=container: c.started or self.deleted)
                else:
                    expect(container.ended.wait(60), f"{container} does not end")
                    expect(container.exits[-1] == 0, f"{container} ended with {container.exits[-1]}")
            for container in self.mains:
                container.start()
        except Exception as error:  # the story reads it: this is a thread
            self.trouble = error

    def open_sandbox(self):
        flags = [f"--name={self.node.prefix}-{self.name}", *self.node.labels(self, "sandbox"), f"--hostname={self.name}"]
        flags += [f"--network={self.node.network}", "--read-only", "--cap-drop=ALL", "--no-healthcheck", "--user=65535"]
        for setting in self.spec.get("securityContext", {}).get("sysctls", []):
            flags.append(f"--sysctl={setting['name']}={setting['value']}")
        idle = ["backend", f"--listen=127.0.0.1:{IDLE_PORT}"]
        self.sandbox = run("docker", "run", "--detach", *flags, self.node.image("evenkeel"), *idle).strip()[:12]
        (found,) = json.loads(run("docker", "inspect", self.sandbox))
        self.address = found["NetworkSettings"]["Networks"][self.node.network]["IPAddress"]

    def groups(self):
        security = self.spec.get("securityContext", {})
        own = [security["fsGroup"]] if "fsGroup" in security else []
        return own + security.get("supplementalGroups", [])

    def make_volumes(self):
        group = self.spec.get("securityContext", {}).get("fsGroup")
        for volume in self.spec.get("volumes", []):
            name = volume["name"]
            place = os.path.join(self.folder, name)
            if "emptyDir" in volume:
                volumes.empty(place, group)
                continue
            kind, entry, wanted = source_of(volume)
            key = kind, self.namespace, wanted
            if key not in self.node.sources:
                expect(entry.get("optional"), f"{self}: there is no {kind} {wanted}")
                volumes.empty(place, group)
                continue
            files = volumes.contents(self.node.sources[key], entry)
            self.swapped[name] = (key, entry, volumes.Swapped(place, files, group))

    def swap(self, source):
        meta = source["metadata"]
        for key, entry, folder in self.swapped.values():
            if key == (source["kind"], meta["namespace"], meta["name"]):
                folder.write(volumes.contents(source, entry))

    def mounts(self, wanted):
        flags = [f"--volume={self.node.resolver(self.namespace)}:/etc/resolv.conf:ro"]
        held = {volume["name"]: volume for volume in self.spec.get("volumes", [])}
        for mount in wanted:
            expect(not mount.keys() - {"name", "mountPath", "readOnly"}, f"{self}: not provided for: {mount}")
            # ConfigMaps and Secrets cannot be written to, whatever the mount says.
            fixed = mount.get("readOnly") or "emptyDir" not in held[mount["name"]]
            place = os.path.join(self.folder, mount["name"])
            flags.append(f"--volume={place}:{mount['mountPath']}{':ro' if fixed else ''}")
        return flags

    def links(self):
        """The variables by which Kubernetes tells every pod of the Services of its namespace."""
        return self.node.links.get(self.namespace, {}) if self.spec.get("enableServiceLinks", True) else {}

    def field(self, path):
        known = {"metadata.name": self.name, "metadata.namespace": self.namespace, "status.podIP": self.address}
        known |= {"status.hostIP": self.node.gateway, "spec.nodeName": "node"}
        expect(path in known, f"{self}: not provided for: {path}")
        return known[path]

    # --- end

    def delete(self):
        """Returns at once; `ended` says when it is gone."""
        expect(self.deleted is None, f"{self} is told to go twice")
        self.deleted = time.time()
        threading.Thread(target=self.end, daemon=True).start()

    def end(self):
        """All hooks at once, then the main containers, then the sidecars, the last one that began first."""
        ordered = [(c, []) for c in self.mains]
        for number, sidecar in enumerate(self.sidecars):
            ordered.append((sidecar, self.mains + self.sidecars[number + 1 :]))
        threads = []
        for container, before in ordered:

            def its_turn(grace, before=before):
                deadline = time.time() + grace
                for other in before:
                    other.ended.wait(max(0, deadline - time.time()))

            threads.append(threading.Thread(target=self.guarded, args=(container, its_turn), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.gone = time.time()
        run("docker", "rm", "--force", self.sandbox, check=False)
        self.ended.set()

    def guarded(self, container, its_turn):
        try:
            container.stop(self.grace, its_turn)
        except Exception as error:  # the story reads it: this is a thread
            self.trouble = error

    def took_leave(self):
        """Each container was asked, ended by itself, with 0, and in time."""
        for container in self.mains + self.sidecars:
            if container.pre_stop:
                code, _, said = container.pre_stop
                expect(code == 0, f"{container}: preStop ended with {code}: {said}")
            expect(not container.was_killed, f"{container} was killed when its grace was over")
            expect(container.exits[-1:] == [0], f"{container} ended with {container.exits}")
        expect(self.gone - self.deleted < self.grace, f"{self} took {self.gone - self.deleted:.1f} of {self.grace} s")


def source_of(volume):
    """Kind of what a volume is made of, the volume's entry, and the name."""
    if "configMap" in volume:
        return "ConfigMap", volume["configMap"], volume["configMap"]["name"]
    if "secret" in volume:
        return "Secret", volume["secret"], volume["secret"]["secretName"]
    raise Broken(f"not provided for: {volume}")
