"""Stand-ins for those who change a cluster: Deployments replace pods, Services follow them.

A pod is in the records of its headless Service, and in the rules of its other Services, from a second
after it is ready until a second after it was told to go: nobody hears of anything at once.
"""

import math
import subprocess
import threading
import time

from checks import Broken, expect, until
from pods import Pod
from zone import ZONE

# From a pod's change to what DNS and the clients' kernels make of it, in seconds.
DELAY = 1.0
# Where Services without records of their own have their addresses.
VIRTUAL = "10.96.0"


class Cluster:
    def __init__(self, node, zone, clients_pid):
        self.node, self.zone, self.clients_pid = node, zone, clients_pid
        self.deployments = []
        self.services = {}
        # When the last change of each Service was made known.
        self.known = {}
        self.trouble = None
        # Containers that the story has killed.
        self.killed = set()
        self.lock = threading.Lock()
        threading.Thread(target=self.follow, daemon=True).start()

    def apply(self, objects):
        """Takes over what concerns pods; the rest is for others."""
        for thing in objects:
            kind, meta = thing["kind"], thing["metadata"]
            key = meta.get("namespace"), meta["name"]
            if kind in ("ConfigMap", "Secret"):
                self.node.update(thing)
            elif kind == "Service":
                self.add_service(key, thing)
        # A pod mounts what is there already, and knows of the Services that are there already.
        scalers = {h["spec"]["scaleTargetRef"]["name"]: h for h in objects if h["kind"] == "HorizontalPodAutoscaler"}
        wanted = [thing for thing in objects if thing["kind"] == "Deployment"]
        made = [Deployment(self, thing, scalers.get(thing["metadata"]["name"])) for thing in wanted]
        self.deployments += made
        return made

    def add_service(self, key, thing):
        service = Service(key, thing, None if is_headless(thing) else f"{VIRTUAL}.{10 + len(self.services)}")
        with self.lock:
            self.services[key] = service
        if service.address:
            # An unnamed port, or one of another protocol, has variables as well.
            links = self.node.links.setdefault(service.namespace, {})
            prefix = service.name.upper().replace("-", "_")
            links |= {f"{prefix}_SERVICE_HOST": service.address, f"{prefix}_SERVICE_PORT": str(service.ports[0]["port"])}
            links[f"{prefix}_PORT"] = f"tcp://{service.address}:{service.ports[0]['port']}"
            for port in service.ports:
                begin = f"{prefix}_PORT_{port['port']}_TCP"
                links |= {begin: f"tcp://{service.address}:{port['port']}", f"{begin}_PROTO": "tcp"}
                links |= {f"{begin}_PORT": str(port["port"]), f"{begin}_ADDR": service.address}
            self.zone.replace({(service.domain, "A"): [service.address]})
            self.redirect({})

    def service(self, name, namespace):
        return self.services[namespace, name]

    # --- endpoints

    def members(self, service):
        """Address and ports of those that are ready and have not been told to go."""
        found = []
        for pod in self.node.pods:
            if pod.namespace == service.namespace and service.selects(pod) and pod.deleted is None and pod.is_ready():
                found.append((pod.address, tuple(service.target(pod, port) for port in service.ports)))
        return tuple(sorted(found))

    def follow(self):
        pending = []
        last = {}
        try:
            while not self.node.is_closing:
                with self.lock:
                    services = list(self.services.items())
                for key, service in services:
                    now = self.members(service)
                    if now != last.get(key, ()):
                        last[key] = now
                        pending.append((time.time() + DELAY, key, now))
                due = [change for change in pending if change[0] <= time.time()]
                pending = pending[len(due) :]
                for _, key, members in due:
                    self.make_known(self.services[key], members)
                time.sleep(0.05)
        except Exception as error:  # the story reads it: this is a thread
            self.trouble = error

    def make_known(self, service, members):
        if service.address:
            self.redirect({service: members})
        elif self.zone.is_silent:
            # Somebody else's turn: what has changed is found out when it speaks again.
            raise Broken("the endpoints changed while DNS is away")
        else:
            self.zone.replace(service.records(members))
        service.members = members
        self.known[service.namespace, service.name] = time.time()

    def redirect(self, changed):
        """Rules like kube-proxy's, in the clients' network: where a new connection to a Service goes."""
        for service, members in changed.items():
            service.members = members
        lines, refused = ["*nat"], []
        with self.lock:
            services = [s for s in self.services.values() if s.address]
        for service in services:
            for number, port in enumerate(service.ports):
                to = f"-A OUTPUT -d {service.address} -p tcp --dport {port['port']}"
                if not service.members:
                    refused.append(f"{to} -j REJECT --reject-with icmp-port-unreachable")
                for left in range(len(service.members), 0, -1):
                    address, ports = service.members[-left]
                    chance = f" -m statistic --mode random --probability {1 / left:.6f}" if left > 1 else ""
                    lines.append(f"{to}{chance} -j DNAT --to-destination {address}:{ports[number]}")
        rules = "\n".join([*lines, "COMMIT", "*filter", *refused, "COMMIT", ""])
        command = ["nsenter", "--net", f"--target={self.clients_pid}", "iptables-restore"]
        done = subprocess.run(command, input=rules, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode != 0:
            raise Broken(f"iptables-restore: {done.stderr}\n{rules}")

    def took_leave(self, pods):
        """Waits until they are gone, and looks at how they went."""
        for pod in pods:
            until(f"{pod} is gone", lambda p=pod: self.healthy() or p.ended.is_set(), pod.grace + 20)
            pod.took_leave()

    def healthy(self):
        """Raises what went wrong in the background."""
        for one in (self, *self.node.pods):
            if one.trouble:
                raise Broken(f"{type(one).__name__} {getattr(one, 'name', '')}: {one.trouble}")
        for pod in self.node.pods:
            for container in pod.mains + pod.sidecars:
                was_killed = container in self.killed
                expect(len(container.exits) <= was_killed or pod.deleted, f"{container} ended with {container.exits}")


def is_headless(thing):
    return thing["spec"].get("clusterIP") == "None"


class Service:
    def __init__(self, key, thing, address):
        self.namespace, self.name = key
        self.address = address
        self.selector = thing["spec"]["selector"]
        self.ports = thing["spec"]["ports"]
        for port in self.ports:
            expect(port.get("protocol", "TCP") == "TCP", f"{self.name}: not provided for: {port}")
        expect(not thing["spec"].get("publishNotReadyAddresses"), f"{self.name} publishes whoever is not ready")
        self.domain = f"{self.name}.{self.namespace}.svc.{ZONE}"
        self.members = ()
        # Names of pods that have an address record of their own.
        self.hosts = set()

    def selects(self, pod):
        return self.selector.items() <= pod.labels.items()

    def target(self, pod, port):
        """A pod's port for the Service's; one that is called by a name is some container's."""
        wanted = port.get("targetPort", port["port"])
        if isinstance(wanted, int):
            return wanted
        for container in pod.sidecars + pod.mains:
            for own in container.spec.get("ports", []):
                if own.get("name") == wanted:
                    return own["containerPort"]
        raise Broken(f"{pod} has no port {wanted}, which {self.name} asks for")

    def weight(self, count):
        """What CoreDNS gives to each of so many."""
        return max(1, math.floor(100 / count))

    def records(self, members):
        """What CoreDNS answers with for these: an address for each, and a record for each and named port."""
        hosts = {f"{address.replace('.', '-')}.{self.domain}": address for address, _ in members}
        records = {(name, "A"): [] for name in self.hosts - hosts.keys()}
        records |= {(name, "A"): [address] for name, address in hosts.items()}
        records[self.domain, "A"] = list(hosts.values())
        for number, port in enumerate(self.ports):
            if "name" not in port:
                continue
            data = [f"0 {self.weight(len(members))} {p[number]} {a.replace('.', '-')}.{self.domain}." for a, p in members]
            records[f"_{port['name']}._tcp.{self.domain}", "SRV"] = data
        self.hosts = set(hosts)
        return records


class Deployment:
    def __init__(self, cluster, thing, scaler):
        self.cluster = cluster
        self.name, self.namespace = thing["metadata"]["name"], thing["metadata"].get("namespace", "default")
        self.spec = spec = thing["spec"]
        self.template = spec["template"]
        self.replicas = spec.get("replicas", scaler["spec"]["minReplicas"] if scaler else 1)
        strategy = spec.get("strategy", {})
        expect(strategy.get("type", "RollingUpdate") == "RollingUpdate", f"{self.name}: not provided for: {strategy}")
        self.rolling = strategy.get("rollingUpdate", {})
        self.revision = 1
        self.count = 0
        self.pods = []

    def surge(self):
        return self.share(self.rolling.get("maxSurge", "25%"), math.ceil)

    def unavailable(self):
        return self.share(self.rolling.get("maxUnavailable", "25%"), math.floor)

    def share(self, value, rounded):
        return rounded(self.replicas * float(value.rstrip("%")) / 100) if isinstance(value, str) else value

    def living(self):
        return [pod for pod in self.pods if pod.deleted is None]

    def is_available(self, pod):
        return pod.is_ready() and time.time() - pod.first_ready >= self.spec.get("minReadySeconds", 0)

    def step(self):
        """One look at what there is; makes and ends pods as the strategy allows. True: all is as wanted."""
        new = [pod for pod in self.living() if pod.revision == self.revision]
        old = [pod for pod in self.living() if pod.revision != self.revision]
        while len(new) < self.replicas and len(new) + len(old) < self.replicas + (self.surge() if old else 0):
            new.append(self.make())
        # When there are fewer to be, the youngest go.
        for pod in new[self.replicas :]:
            pod.delete()
        new = new[: self.replicas]
        spare = sum(self.is_available(pod) for pod in new + old) - (self.replicas - self.unavailable())
        for pod in old:
            if spare > 0 or not pod.is_ready():
                spare -= pod.is_ready()
                pod.delete()
        return not old and len(new) == self.replicas and all(self.is_available(pod) for pod in new)

    def make(self):
        self.count += 1
        pod = Pod(self.cluster.node, f"{self.name}-{self.revision}-{self.count}", self.namespace, self.template)
        pod.revision = self.revision
        self.pods.append(pod)
        return pod

    def settle(self):
        """Goes on until all pods are as wanted. Returns those that were told to go meanwhile."""
        before = [pod for pod in self.pods if pod.deleted]
        until(f"{self.name} has its {self.replicas} pods", lambda: self.cluster.healthy() or self.step(), 120)
        return [pod for pod in self.pods if pod.deleted and pod not in before]

    def scale(self, replicas):
        self.replicas = replicas
        return self.settle()

    def roll(self):
        """As after a change of the template: every pod is replaced."""
        self.revision += 1
        return self.settle()

    def delete(self):
        self.replicas = 0
        return self.settle()
