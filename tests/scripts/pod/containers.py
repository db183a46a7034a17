"""One container of a pod: run, probed, told to stop and looked after, as a kubelet does.

What the manifest says and this does not know is an error: nothing of it is left out in silence.
"""

import http.client
import re
import shlex
import socket
import ssl
import subprocess
import threading
import time

from checks import Broken, expect, say
from commands import run

# Of a container: those that are looked at here or in pods.py, and those that mean nothing without a cluster.
KNOWN = {"name", "image", "command", "args", "env", "ports", "volumeMounts", "securityContext", "resources", "lifecycle"}
KNOWN |= {"startupProbe", "readinessProbe", "livenessProbe", "restartPolicy"}
MEANINGLESS = {"imagePullPolicy", "terminationMessagePolicy", "terminationMessagePath"}
SECURITY = {"runAsUser", "runAsGroup", "runAsNonRoot", "readOnlyRootFilesystem", "allowPrivilegeEscalation", "capabilities"}
SECURITY |= {"seccompProfile", "privileged"}
# How long a container has at least to stop after TERM, whatever was spent before.
LEAST = 2.0
# Before a container that has ended again is started: at once, then after so many seconds more each time.
BACK_OFF = 10.0


class Container:
    def __init__(self, pod, spec, is_init=False):
        self.pod, self.spec, self.name = pod, spec, spec["name"]
        unknown = spec.keys() - KNOWN - MEANINGLESS
        expect(not unknown, f"{pod.name}/{self.name}: not provided for: {sorted(unknown)}")
        self.is_sidecar = is_init and spec.get("restartPolicy") == "Always"
        self.attempt = 0
        self.id = None
        self.pid = None
        # Since when, by time.time(); None while it does not.
        self.running = None
        self.started = self.ready = False
        # Exit codes, in their order, and when the last one came.
        self.exits = []
        self.ended_at = None
        self.ended = threading.Event()
        self.told = None
        self.was_killed = False
        self.pre_stop = None

    def __str__(self):
        return f"{self.pod.name}/{self.name}"

    # --- start

    def start(self):
        self.attempt += 1
        self.id = run("docker", "run", "--detach", *self.flags()).strip()[:12]
        self.running = time.time()
        threading.Thread(target=self.watch, args=(self.id,), daemon=True).start()
        # Without a probe, a container that runs has started, and one that has started is ready.
        self.started = "startupProbe" not in self.spec
        self.ready = self.started and "readinessProbe" not in self.spec
        threading.Thread(target=self.probe, args=(self.attempt,), daemon=True).start()

    def flags(self):
        pod, security = self.pod, self.security()
        flags = [f"--name={pod.node.prefix}-{pod.name}-{self.name}-{self.attempt}", *pod.node.labels(pod, self.name)]
        flags += [f"--network=container:{pod.sandbox}", "--no-healthcheck", "--restart=no"]
        user = security.get("runAsUser")
        if user is not None:
            group = security.get("runAsGroup")
            flags.append(f"--user={user}" if group is None else f"--user={user}:{group}")
        if security.get("runAsNonRoot"):
            image = pod.node.user_of(self.spec["image"])
            expect((user or image) and str(user or image).split(":")[0] not in ("0", "root"), f"{self} would run as root")
        flags += [f"--group-add={group}" for group in pod.groups()]
        if security.get("readOnlyRootFilesystem"):
            flags.append("--read-only")
        if security.get("privileged"):
            flags.append("--privileged")
        if security.get("allowPrivilegeEscalation") is False:
            flags.append("--security-opt=no-new-privileges:true")
        capabilities = security.get("capabilities", {})
        flags += [f"--cap-drop={name}" for name in capabilities.get("drop", [])]
        flags += [f"--cap-add={name}" for name in capabilities.get("add", [])]
        limits = self.spec.get("resources", {}).get("limits", {})
        if "memory" in limits:
            flags += [f"--memory={quantity(limits['memory']):.0f}", f"--memory-swap={quantity(limits['memory']):.0f}"]
        if "cpu" in limits:
            flags.append(f"--cpus={quantity(limits['cpu'])}")
        variables = self.environment()
        flags += [f"--env={name}={value}" for name, value in variables.items()]
        flags += pod.mounts(self.spec.get("volumeMounts", []))
        command = [expand(word, variables) for word in self.spec.get("command", [])]
        arguments = [expand(word, variables) for word in self.spec.get("args", [])]
        if command:
            flags.append(f"--entrypoint={command[0]}")
        return [*flags, pod.node.image(self.spec["image"]), *command[1:], *arguments]

    def security(self):
        """What the pod says, and what the container says instead."""
        own = self.spec.get("securityContext", {})
        unknown = own.keys() - SECURITY
        expect(not unknown, f"{self}: not provided for in securityContext: {sorted(unknown)}")
        of_pod = self.pod.spec.get("securityContext", {})
        merged = {key: value for key, value in of_pod.items() if key in SECURITY} | own
        # Docker's own profile is what RuntimeDefault means.
        expect(merged.get("seccompProfile", {}).get("type", "RuntimeDefault") == "RuntimeDefault", f"{self}: {merged}")
        return merged

    def environment(self):
        """Variables in the order in which they may refer to one another."""
        variables = dict(self.pod.links())
        for entry in self.spec.get("env", []):
            if "value" in entry or entry.keys() == {"name"}:
                variables[entry["name"]] = expand(entry.get("value", ""), variables)
                continue
            source = entry["valueFrom"]
            if "fieldRef" in source:
                variables[entry["name"]] = self.pod.field(source["fieldRef"]["fieldPath"])
            elif "resourceFieldRef" in source:
                variables[entry["name"]] = self.resource(source["resourceFieldRef"])
            else:
                raise Broken(f"{self}: not provided for: {entry}")
        return variables

    def resource(self, reference):
        kind, name = reference["resource"].split(".")
        found = quantity(self.spec["resources"][kind][name])
        divisor = quantity(reference.get("divisor", "1"))
        return str(-int(-found // (divisor or 1)))

    def port(self, wanted):
        """The number of a port, which may be called by its name."""
        if isinstance(wanted, int):
            return wanted
        found = [port["containerPort"] for port in self.spec.get("ports", []) if port.get("name") == wanted]
        expect(len(found) == 1, f"{self} has no port {wanted}")
        return found[0]

    # --- end

    def watch(self, container):
        """Waits for its end, keeps what it said, and starts it again if the pod goes on."""
        said = run("docker", "wait", container, patience=None, check=False).strip()
        if self.pod.node.is_closing:
            return
        self.ended_at = time.time()
        self.running = None
        self.started = self.ready = False
        self.exits.append(int(said))
        self.pod.node.keep_log(self, container)
        run("docker", "rm", container, check=False)
        if self.pod.deleted or not (self.is_sidecar or self in self.pod.mains):
            self.ended.set()
            return
        say(f"  {self} has ended with {said} and is started again")
        time.sleep(BACK_OFF * (self.attempt - 1))
        if self.pod.deleted:
            self.ended.set()
            return
        self.start()

    def stop(self, grace, its_turn):
        """preStop, then TERM when it is its turn, then KILL. Takes the pod's grace in seconds."""
        hook = self.spec.get("lifecycle", {}).get("preStop")
        begun = time.time()
        if hook and self.running:
            self.pre_stop = self.carry_out(hook, grace)
            grace -= time.time() - begun
        begun = time.time()
        its_turn(max(grace, 0))
        # As kubelet does it: whole seconds of the time for which it waited count.
        grace = max(grace - int(time.time() - begun), LEAST)
        if not self.running:
            self.ended.set()
            return
        self.told = time.time()
        run("docker", "kill", "--signal=TERM", self.id, check=False)
        if not self.ended.wait(grace):
            self.was_killed = True
            run("docker", "kill", "--signal=KILL", self.id, check=False)
            self.ended.wait(10)

    def carry_out(self, hook, grace):
        """Returns (exit code, seconds, what it said)."""
        begun = time.time()
        if "sleep" in hook:
            time.sleep(min(hook["sleep"]["seconds"], grace))
            return 0, time.time() - begun, ""
        expect(hook.keys() == {"exec"}, f"{self}: not provided for: {hook}")
        code, said = self.execute(hook["exec"]["command"], grace)
        return code, time.time() - begun, said

    def execute(self, command, patience):
        """Runs a command in it; returns the exit code (None: it took too long) and what it said."""
        try:
            command = ["docker", "exec", self.id, *command]
            done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
        except subprocess.TimeoutExpired:
            return None, f"{shlex.join(command)}: not done after {patience:.0f} s"
        return done.returncode, done.stdout + done.stderr

    # --- probes

    def probe(self, attempt):
        """The startup probe until it has succeeded, then the other two beside each other."""
        if "startupProbe" in self.spec:
            self.repeat(attempt, "startupProbe")
        for kind in ("readinessProbe", "livenessProbe"):
            if kind in self.spec:
                threading.Thread(target=self.repeat, args=(attempt, kind), daemon=True).start()

    def repeat(self, attempt, kind):
        probe = self.spec[kind]
        period = probe.get("periodSeconds", 10)
        in_a_row = {True: 0, False: 0}
        time.sleep(probe.get("initialDelaySeconds", 0))
        while self.running and self.attempt == attempt:
            # Only readiness is of interest to anybody once the pod ends.
            if self.pod.deleted and kind != "readinessProbe":
                return
            begun = time.time()
            failure = self.ask(probe)
            if not self.running or self.attempt != attempt:
                return
            good = failure is None
            in_a_row[good] += 1
            in_a_row[not good] = 0
            enough = in_a_row[good] >= (probe.get("successThreshold", 1) if good else probe.get("failureThreshold", 3))
            if kind == "readinessProbe" and enough:
                self.ready = good
            elif kind == "startupProbe" and good:
                self.started = True
                self.ready = "readinessProbe" not in self.spec
                return
            elif not good and enough and not self.pod.deleted:
                say(f"  {self}: {kind} fails, it is started anew: {failure}")
                run("docker", "kill", "--signal=KILL", self.id, check=False)
                return
            time.sleep(max(0, period - (time.time() - begun)))

    def ask(self, probe):
        """What is wrong, or None."""
        patience = probe.get("timeoutSeconds", 1)
        if "exec" in probe:
            code, said = self.execute(probe["exec"]["command"], patience)
            return None if code == 0 else f"exit {code}: {said}"
        if "tcpSocket" in probe:
            try:
                socket.create_connection((self.pod.address, self.port(probe["tcpSocket"]["port"])), patience).close()
            except OSError as error:
                return repr(error)
            return None
        if "httpGet" not in probe:
            raise Broken(f"{self}: not provided for: {probe}")
        get = probe["httpGet"]
        expect("host" not in get, f"{self}: a probe of another host")
        where = self.pod.address, self.port(get["port"])
        if get.get("scheme", "HTTP") == "HTTPS":
            connection = http.client.HTTPSConnection(*where, timeout=patience, context=ssl._create_unverified_context())
        else:
            connection = http.client.HTTPConnection(*where, timeout=patience)
        try:
            headers = {field["name"]: field["value"] for field in get.get("httpHeaders", [])}
            connection.request("GET", get.get("path", "/"), headers=headers)
            response = connection.getresponse()
            body = response.read(1000)
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        finally:
            connection.close()
        return None if 200 <= response.status < 400 else f"status {response.status}: {body!r}"


def quantity(text):
    """Kubernetes' numbers: 500m, 128Mi, 1G."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()
    units = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return float(number) * units[unit]


def expand(text, variables):
    """$(NAME), where that is a variable; $$ is a dollar."""
    return re.sub(r"\$\$|\$\(([A-Za-z0-9_.-]+)\)", lambda m: "$" if m[0] == "$$" else variables.get(m[1], m[0]), text)
