"""What balancers say of themselves, by their metrics: weights, shares, whether DNS answers."""

import http.client
import re
import time

from checks import expect, say, seconds, until
from zone import TTL

# From a change of the records to what a balancer makes of it: it asks again when the TTL is over, give
# or take a tenth, and there is a second for the rest.
EFFECT = 1.1 * TTL + 1
# In the resources of the prod overlay.
WORKERS = 2
# Requests that take seconds, each counted when it has ended: those of clients.py at a time, and some.
SLOW = 6


def metrics(pod):
    """Each series of a balancer, by name and labels."""
    port = next(c for c in pod.sidecars + pod.mains if c.name == "evenkeel").port("probe")
    connection = http.client.HTTPConnection(pod.address, port, timeout=5)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = {}
    for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
        found[name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))] = float(value)
    return found


def by_backend(pod, name):
    """Values of a series of the balancer by the address of the backend."""
    found = {}
    for (series, labels), value in metrics(pod).items():
        if series == f"evenkeel_{name}":
            address = re.search(r"\d+\.\d+\.\d+\.\d+", dict(labels)["backend"])
            found[address[0]] = value
    return found


def in_effect(cluster, deployment, balancers, service, promised=EFFECT):
    """Waits until each balancer has the weights that the records say; prints how long it took."""
    listed = cluster.service(service, deployment.namespace)
    pods = deployment.living()
    wanted = {pod.address: float(listed.weight(len(pods))) for pod in pods}
    until("the records are changed", lambda: cluster.healthy() or {address for address, _ in listed.members} == set(wanted))
    known = cluster.known[deployment.namespace, service]
    times = []
    for pod in balancers:

        def has_them(pod=pod):
            found = by_backend(pod, "backend_weight")
            return {address: weight for address, weight in found.items() if address in wanted} == wanted

        until(f"{pod} has the weights {wanted}", has_them)
        times.append(time.time() - known)
    weight = min(wanted.values())
    say(f"  weight {weight:.0f} for each of {len(wanted)}, in effect {seconds(times)} after the records changed")
    expect(max(times) < promised, f"promised are {promised} s")


def exact_shares(clients, deployment, balancers, workers=WORKERS):
    """What the balancers say of themselves: nobody has more than each schedule's due."""
    before = {pod.name: by_backend(pod, "backend_requests_total") for pod in balancers}
    begun = time.time()
    until("400 requests", lambda: len(clients.since(begun)) >= 400)
    after = {pod.name: by_backend(pod, "backend_requests_total") for pod in balancers}
    backends = [pod.address for pod in deployment.living()]
    told = []
    for name, counts in after.items():
        had = {address: count - before[name].get(address, 0) for address, count in counts.items()}
        had = {address: count for address, count in had.items() if count}
        expect(set(had) == set(backends), f"{name} sent requests to {had}, there are {backends}")
        due = sum(had.values()) / len(backends)
        # Each worker has a schedule of its own, which is never off by more than one. What was begun and
        # has not ended at either look is the rest.
        most = max(abs(count - due) for count in had.values())
        expect(most <= workers + SLOW, f"{name}: {had}, due are {due:.1f} each")
        told.append(f"{sum(had.values()):.0f} requests, {due:.1f} each, off by {most:.1f} at most")
    for line in told:
        say(f"  a balancer: {line}")
