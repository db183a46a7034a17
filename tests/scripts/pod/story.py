"""The story of the rendered manifests under HTTPS traffic: pods come, go, die and are replaced.

tests/pod.sh builds the image, makes the network, calls this and cleans up after it. Told on the way: what
happened, and how many seconds it took to be in effect. Ends with 1 as soon as something does not hold.

What is believed: the clients' own books for the requests, the balancers' metrics for weights and shares, and,
for whether a POST was carried out, what the backends wrote about it, not what a response said.
"""

import argparse
import collections
import copy
import json
import re
import signal
import socket
import ssl
import sys
import threading
import time

import yaml
from authority import Authority
from balancers import exact_shares, in_effect, metrics
from checks import BEGUN, Broken, expect, say, seconds, until
from clients import Clients, Lasting, Target, Waiting, ask
from cluster import Cluster
from commands import run, stamp
from ledger import equal_shares
from pods import IDLE_PORT, Node
from start_up import start_up
from zone import TTL, Zone

RENDERED = "deploy/kubernetes/rendered"
# From another certificate in the folder to the first handshake that has it: the folder is watched, and is
# looked at every ten seconds in any case.
RENEWED = 11.0
BALANCERS = 2


def load(name):
    with open(f"{RENDERED}/{name}.yaml", encoding="utf-8") as file:
        return [thing for thing in yaml.safe_load_all(file) if thing]


def one(objects, kind, name):
    (found,) = (thing for thing in objects if thing["kind"] == kind and thing["metadata"]["name"] == name)
    return found


def write_down(containers):
    """Backends that write each request down when it has arrived."""
    for container in containers:
        container.setdefault("env", []).append({"name": "EVENKEEL_LOG", "value": "info,evenkeel::sample=debug"})


def one_of(things):
    (thing,) = things
    return thing


# --- what is looked at again and again


def nothing_failed(cluster, clients, excused=None):
    cluster.healthy()
    failed = [sample for sample in clients.failures() if excused is None or not excused(sample)]
    for sample in failed[:10]:
        say(f"  failed, sent at {sample.sent - BEGUN:.2f} s, for {sample.done - sample.sent:.2f} s: {sample}")
    expect(not failed, f"{len(failed)} of {len(clients.samples)} requests failed")


def ended(pods):
    """How those went that were told to go."""
    for pod in pods:
        words = []
        for container in pod.mains + pod.sidecars:
            word = f"{container.name}: exit {container.exits[-1]}, TERM after {container.told - pod.deleted:.1f} s"
            if container.pre_stop:
                word += f" (preStop {container.pre_stop[1]:.1f} s)"
            words.append(f"{word}, end after {container.ended_at - pod.deleted:.1f} s")
        say(f"  {pod}: {'; '.join(words)}; grace {pod.grace} s")


# --- the story


def tell(arguments):
    images = {"evenkeel": arguments.image}
    node = Node(arguments.name, arguments.name, arguments.gateway, images, arguments.folder)
    zone = None
    try:
        start_up(node, arguments.folder)
        zone = Zone(arguments.gateway, arguments.folder)
        flags = [f"--label=evenkeel-pod-story={node.prefix}", f"--network={node.network}", f"--name={node.prefix}-clients"]
        idle = ["backend", f"--listen=127.0.0.1:{IDLE_PORT}"]
        clients = run("docker", "run", "--detach", *flags, arguments.image, *idle).strip()
        pid = int(run("docker", "inspect", "--format={{.State.Pid}}", clients))
        cluster = Cluster(node, zone, pid)
        authority, network = Authority(arguments.folder), f"/proc/{pid}/ns/net"
        edge(cluster, authority, network)
        beside_an_app(cluster, authority, network)
    finally:
        node.close()
        if zone:
            zone.stop()


def edge(cluster, authority, network):
    say("the edge: prod.yaml's balancers in front of dev.yaml's backends")
    prod, dev = load("prod"), load("dev")
    settings = next(thing for thing in prod if thing["kind"] == "ConfigMap")["data"]["evenkeel.toml"]
    # Where prod.yaml looks for backends, and for whom it serves.
    service, namespace = re.search(r'srv = "_http\._tcp\.([^.]+)\.([^.]+)\.svc', settings).groups()
    host = re.search(r'host = "([^"]+)"', settings)[1]
    backends = [copy.deepcopy(one(dev, kind, service)) for kind in ("Service", "Deployment")]
    for thing in backends:
        thing["metadata"]["namespace"] = namespace
    write_down(backends[1]["spec"]["template"]["spec"]["containers"])
    (web,) = cluster.apply(backends)
    balancer = one(prod, "Deployment", "evenkeel")
    secret = next(v for v in balancer["spec"]["template"]["spec"]["volumes"] if "secret" in v)["secret"]["secretName"]
    where = balancer["metadata"]["namespace"]
    (lb,) = cluster.apply([authority.secret(where, secret, host), *prod])
    say(f"  of the {lb.replicas} balancers {BALANCERS}: this is one machine")
    lb.replicas = BALANCERS
    begun = time.time()
    web.scale(3)
    lb.settle()
    say(f"  all are available after {time.time() - begun:.1f} s")
    front = cluster.service("evenkeel", where)
    until("the Service has them", lambda: cluster.healthy() or len(front.members) == BALANCERS)
    target = Target(network, front.address, 443, host, authority.certificate)
    in_network(target, first_answers, target)
    plain = Target(network, front.address, 80, host, None)
    status = in_network(plain, ask, plain)[0]
    expect(status == "308", f"who comes without TLS is not sent on but told {status}")
    clients = Clients(target, "edge")
    try:
        edge_story(cluster, authority, clients, web, lb, service, secret, host)
    finally:
        clients.stopping.set()


def edge_story(cluster, authority, clients, web, lb, service, secret, host):
    # Nobody looked when the records were made.
    in_effect(cluster, web, lb.living(), service, float("inf"))
    equal_shares(clients, [pod.name for pod in web.living()])
    exact_shares(clients, web, lb.living())
    nothing_failed(cluster, clients)

    say("3 -> 5 backends")
    web.scale(5)
    in_effect(cluster, web, lb.living(), service)
    exact_shares(clients, web, lb.living())
    nothing_failed(cluster, clients)

    say("5 -> 2 backends")
    going = web.scale(2)
    in_effect(cluster, web, lb.living(), service)
    cluster.took_leave(going)
    ended(going)
    exact_shares(clients, web, lb.living())
    nothing_failed(cluster, clients)

    say("the backends are replaced, 2 by 3")
    begun = time.time()
    web.replicas = 3
    going = web.roll()
    in_effect(cluster, web, lb.living(), service)
    cluster.took_leave(going)
    say(f"  took {time.time() - begun:.1f} s")
    ended(going)
    exact_shares(clients, web, lb.living())
    nothing_failed(cluster, clients)

    say("the balancers are replaced")
    begun = time.time()
    port = lb.pods[0].container("evenkeel").port("https")
    before = lb.living()
    lasting = [Lasting(Target(clients.target.network, p.address, port, host, authority.certificate), p.name) for p in before]
    going = lb.roll()
    expect(set(going) == set(before) and len(lb.living()) == BALANCERS, f"{lb.pods} are there")
    say(f"  {BALANCERS} new ones are available after {time.time() - begun:.1f} s; those from before are draining")
    another_certificate(cluster, authority, lb, clients, secret, host)
    another_configuration(cluster, lb, clients)
    without_dns(cluster, clients, web, lb)
    for pod, streams in zip(before, lasting):
        container = pod.container("evenkeel")
        until(f"{pod} has its TERM", lambda c=container: cluster.healthy() or c.told)
        # Longer than it takes to end when there is nothing to wait for.
        until("some seconds are over", lambda c=container: time.time() - c.told > 3)
        expect(container.running, f"{pod} ended with {container.exits} while requests were under way")
        streams.stop()
        nothing_failed(cluster, streams)
        expect(len(streams.samples) == len(streams.threads), f"some are not accounted for: {streams.samples}")
    count = sum(len(streams.samples) for streams in lasting)
    say(f"  {count} responses, bodies and WebSockets, begun before and ended when the story said so, after the TERM: all whole")
    cluster.took_leave(going)
    ended(going)
    for pod in going:
        under_way(cluster.node, pod)
    exact_shares(clients, web, lb.living())
    nothing_failed(cluster, clients)

    say("a backend is killed")
    waiting = Waiting(clients.target, "waiting")
    killed, on_it = kill(cluster, web, waiting)
    for thread in waiting.threads:
        thread.join()
    nothing_failed(cluster, waiting)
    where = collections.Counter(s.backend for s in waiting.samples if s.identity in on_it)
    say(f"  {waiting.COUNT} slow GET were under way, {len(on_it)} of them on it: all are answered, those by {dict(where)}")
    expect(killed.name not in where and sum(where.values()) == len(on_it), "it cannot have answered")
    until("it is ready again", killed.is_ready)
    in_effect(cluster, web, lb.living(), service)
    exact_shares(clients, web, lb.living())
    clients.stop()
    nothing_failed(cluster, clients, lambda s: excused(s, killed))
    accounts(cluster, clients, web)


def without_dns(cluster, clients, web, lb):
    say("DNS is silent for three TTLs")
    cluster.zone.silence()
    begun = time.time()
    until("three TTLs are over", lambda: cluster.healthy() or time.time() - begun > 3 * TTL)
    stale = [max(v for (name, _), v in metrics(pod).items() if name == "evenkeel_dns_stale") for pod in lb.living()]
    expect(stale == [1.0] * BALANCERS, f"dns_stale is {stale}: was DNS away?")
    exact_shares(clients, web, lb.living())
    cluster.zone.speak()
    for pod in lb.living():
        until("it is asked again", lambda p=pod: not any(v for (n, _), v in metrics(p).items() if n == "evenkeel_dns_stale"))
    say(f"  away for {time.time() - begun:.1f} s, stale meanwhile and no longer")
    nothing_failed(cluster, clients)


def another_certificate(cluster, authority, lb, clients, secret, host):
    """The Secret is renewed, and each balancer serves what it holds from then on."""
    before = {pod.name: serial(pod, host) for pod in lb.living()}
    cluster.node.update(authority.secret(lb.namespace, secret, host))
    swapped = time.time()
    times = []
    for pod in lb.living():
        until(f"{pod} has another certificate", lambda p=pod: serial(p, host) != before[p.name])
        times.append(time.time() - swapped)
    say(f"  another certificate in the Secret: served {seconds(times)} later")
    expect(max(times) < RENEWED, f"promised are {RENEWED} s")
    count = len(clients.samples)
    until("clients go on", lambda: len(clients.samples) > count + 100)
    nothing_failed(cluster, clients)


def another_configuration(cluster, lb, clients):
    """The ConfigMap itself is changed, and each balancer does as it says from then on."""
    volumes = lb.template["spec"]["volumes"]
    name = one_of(volume for volume in volumes if "configMap" in volume)["configMap"]["name"]
    changed = copy.deepcopy(cluster.node.sources["ConfigMap", lb.namespace, name])
    file = one_of(changed["data"])
    before, after = '[[route]]\n', '[[route]]\nresponse_headers = { set = { "X-Configuration" = "2" } }\n'
    expect(changed["data"][file].count(before) == 1, f"{name} has another form")
    changed["data"][file] = changed["data"][file].replace(before, after)
    generations = {pod.name: generation(pod) for pod in lb.living()}
    cluster.node.update(changed)
    swapped = time.time()
    times = []
    for pod in lb.living():
        until(f"{pod} has another configuration", lambda p=pod: generation(p) > generations[p.name])
        times.append(time.time() - swapped)
    headers = ["--write-out", "%header{x-configuration}", "--http2"]
    target = clients.target
    command = target.curl(*headers, target.url("/"))
    said = in_network(target, lambda: run(*command)).strip()
    expect(said == "2", f"the balancers do not as they are told: {said}")
    say(f"  another configuration in the ConfigMap: in force {seconds(times)} later")
    expect(max(times) < RENEWED, f"promised are {RENEWED} s")
    nothing_failed(cluster, clients)


def generation(pod):
    return metrics(pod)["evenkeel_config_generation", frozenset()]


def serial(pod, host):
    """What tells the certificate that it serves from others."""
    context = ssl._create_unverified_context()
    with socket.create_connection((pod.address, pod.container("evenkeel").port("https")), timeout=5) as plain:
        with context.wrap_socket(plain, server_hostname=host) as session:
            return session.getpeercert(binary_form=True)


def under_way(node, pod):
    """What a balancer served after its TERM, by its access log."""
    container = pod.container("evenkeel")
    late = []
    for line in node.said(container).splitlines():
        when, _, text = line.partition(" ")
        if '"client":' in text and stamp(when) > container.told:
            late.append(json.loads(text))
    longest = max((entry.get("total_ms", 0) for entry in late), default=0)
    say(f"  {pod} finished {len(late)} requests after its TERM, the longest of them {longest / 1000:.1f} s long")
    expect(late, "nothing was under way: the end was not tried")


def kill(cluster, web, waiting):
    """KILL to the container of a backend; the pod stays, and kubelet starts it again. Returns the pod, and
    which of the requests that wait had arrived there."""
    identities = {f"{waiting.name}-get-{number}" for number in range(waiting.COUNT)}
    held = {}

    def arrived():
        for pod in web.living():
            held[pod] = identities & set(asked_for(cluster.node.said(one_of(pod.mains)), "GET"))
        return set().union(*held.values()) == identities

    until("all have arrived", arrived, 3.5, 0.01)
    pod = max(held, key=lambda pod: len(held[pod]))
    container = pod.mains[0]
    cluster.killed.add(container)
    run("docker", "kill", "--signal=KILL", container.id)
    until(f"{container} has ended", lambda: container.exits)
    pod.died = container.ended_at
    expect(container.exits == [137], f"{container} ended with {container.exits}")
    return pod, held[pod]


def asked_for(text, method):
    """Identities of the requests that a backend wrote down."""
    return re.findall(r"\b%s /\S*?[?&]id=([^\s&\"]+)" % method, text)


def excused(sample, killed):
    """Under way on the backend that was killed, and not to be repeated, or not whole any more: a POST, a
    response that had begun, a WebSocket."""
    during = sample.sent < killed.died and sample.done < killed.died + 2
    may_fail = sample.method == "POST" or "-transfer-" in sample.identity or "-websocket-" in sample.identity
    return during and may_fail and sample.backend in (None, killed.name)


def accounts(cluster, clients, deployment):
    """What was asked for and what was done."""
    say("accounts")
    for (kind, method), count in sorted(clients.kinds.items()):
        say(f"  {kind}, {method}: {count}")
    for what, count in sorted(clients.seen.items()):
        say(f"  {what}: {count}")
    failed = clients.failures()
    for sample in failed:
        say(f"  failed when a backend was killed: {sample.method} {sample.identity}: {sample.failure}")
    carried_out = collections.Counter()
    for pod in deployment.pods:
        carried_out.update(asked_for(cluster.node.said(one_of(pod.mains)), "POST"))
    posts = [s for s in clients.since(0.0) if s.method == "POST"]
    confirmed = {s.identity for s in posts if not s.failure}
    missing = confirmed - carried_out.keys()
    expect(not missing, f"answered with 200, and nobody carried it out: {sorted(missing)[:5]}")
    twice = {identity: times for identity, times in carried_out.items() if times > 1}
    expect(not twice, f"carried out more than once: {twice}")
    say(f"  {len(clients.samples)} requests, {len(failed)} failed; {len(confirmed)} POST confirmed, each carried out once")


def beside_an_app(cluster, authority, network):
    say("the sidecar: each pod has an app and a balancer, in one network")
    objects = load("sidecar")
    deployment = one(objects, "Deployment", "app")
    template = deployment["spec"]["template"]["spec"]
    where = deployment["metadata"]["namespace"]
    write_down(template["containers"])
    # As a comment of app.yaml says for a certificate of one's own.
    template["initContainers"] = [c for c in template["initContainers"] if c["name"] != "certificate"]
    certs = next(volume for volume in template["volumes"] if volume["name"] == "certs")
    certs.pop("emptyDir")
    certs["secret"] = {"secretName": "app-tls", "defaultMode": 0o440}
    secret = authority.secret(where, "app-tls", "app.example.com", ("dev.pem", "dev.key"))
    begun = time.time()
    (app,) = cluster.apply([secret, *objects])
    app.settle()
    say(f"  {app.replicas} pods are available after {time.time() - begun:.1f} s")
    services = {thing["spec"].get("clusterIP"): thing["metadata"]["name"] for thing in objects if thing["kind"] == "Service"}
    behind, front = services.pop("None"), cluster.service(one_of(services.values()), where)
    until("the Service has them", lambda: cluster.healthy() or len(front.members) == app.replicas)
    target = Target(network, front.address, 443, "app.example.com", authority.certificate)
    in_network(target, first_answers, target)
    for pod in app.living():
        one_network(pod)
    clients = Clients(target, "sidecar")
    try:
        in_effect(cluster, app, app.living(), behind, float("inf"))
        equal_shares(clients, [pod.name for pod in app.living()])
        exact_shares(clients, app, app.living(), workers=1)
        nothing_failed(cluster, clients)

        say("the pods are replaced")
        begun = time.time()
        going = app.roll()
        cluster.took_leave(going)
        say(f"  took {time.time() - begun:.1f} s")
        ended(going)
        for pod in going:
            main, sidecar = one_of(pod.mains), one_of(pod.sidecars)
            expect(main.told < main.ended_at <= sidecar.told < sidecar.ended_at, f"{pod}: not in the order of a sidecar")
            begun_at = main.told - pod.deleted, sidecar.pre_stop[0]
            expect(begun_at[0] < 1 and begun_at[1] == 0, f"{pod}: hooks and TERM of the app are not at once: {begun_at}")
        exact_shares(clients, app, app.living(), workers=1)
        clients.stop()
        nothing_failed(cluster, clients)
        accounts(cluster, clients, app)
    finally:
        clients.stopping.set()


def one_network(pod):
    """What the app listens on is there for its neighbour on loopback."""
    (port,) = one_of(pod.mains).spec["ports"]
    port = port["containerPort"]
    code, said = one_of(pod.sidecars).execute(["evenkeel", "health", f"--url=http://127.0.0.1:{port}/healthz"], 10)
    expect(code == 0, f"{pod}: the balancer does not reach the app on loopback: {said}")


def first_answers(target):
    """Waits for one of either protocol."""
    for version in ("--http2", "--http1.1"):
        until(f"{version} is answered", lambda v=version: ask(target, version=v)[0] == "200")


def in_network(target, what, *arguments):
    """Calls it in the clients' network; returns what it returns."""
    result = []

    def called():
        try:
            target.enter()
            result.append((what(*arguments), None))
        except BaseException as error:  # for the caller
            result.append((None, error))

    thread = threading.Thread(target=called)
    thread.start()
    thread.join()
    value, error = result[0]
    if error:
        raise error
    return value


def stop(*_):
    # Once is enough: what follows is the clean-up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


# As with Ctrl-C: whoever is told to stop ends what it has started.
signal.signal(signal.SIGTERM, stop)
parser = argparse.ArgumentParser()
for flag in ("name", "image", "gateway", "folder"):
    parser.add_argument(f"--{flag}", required=True)
try:
    tell(parser.parse_args())
except Broken as broken:
    say(f"BROKEN: {broken}")
    sys.exit(1)
