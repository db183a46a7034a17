"""One of the recipes below deploy/compose/ under HTTPS traffic: replicas come, go and die.

tests/recipes.sh builds the images, sets the variables that the recipes read, calls this once for each
and cleans up after it. Ends with 1 as soon as something does not hold.

usage: recipes.py CA_FILE RECIPE
environment: as in containers.py and traffic.py
"""

import json
import os
import re
import signal
import sys
import tempfile
import time

from checks import Broken, expect, say, seconds, until
from commands import run
from containers import PROJECT, Docker, compose, containers, running, scale
from ledger import equal_shares
from traffic import Traffic, answering

# From being there (registered, or started) to the first answer.
JOIN = 3.0
REGISTERED, WITHDRAWN = r"registered _http\._tcp\.web", r"withdrew _http\._tcp\.web"


def hardened(**holds):
    """No container runs as root, can write to its image, or holds a capability but those named."""
    ids = run("docker", "ps", "-aq", f"--filter=label=com.docker.compose.project={PROJECT}").split()
    for container in json.loads(run("docker", "inspect", *ids)):
        name, config, host = container["Name"], container["Config"], container["HostConfig"]
        service = config["Labels"]["com.docker.compose.service"]
        expect(config["User"] and not config["User"].startswith(("0", "root")), f"{name} runs as root")
        expect(host["ReadonlyRootfs"], f"{name} can write to its image")
        expect(host["CapDrop"] == ["ALL"], f"{name} keeps capabilities")
        expect((host["CapAdd"] or []) == holds.get(service, []), f"{name} gets {host['CapAdd']}")
        expect("no-new-privileges:true" in host["SecurityOpt"], f"{name} can gain privileges")
        expect(not host["Privileged"], f"{name} is privileged")
    say(f"  {len(ids)} containers: no root, nothing of the image can be written to, capabilities: {holds or 'none'}")


def up(*services):
    begun = time.time()
    compose("up", "-d", *services)
    say(f"  `up` took {time.time() - begun:.1f} s")


def joined(docker, traffic, newcomers, pattern=None):
    """Waits for a first answer of each, and prints how long after it was there that was."""
    times = []
    for container in newcomers:
        if pattern:
            ready = until(f"{container} registers", lambda: docker.line(container, pattern))
        else:
            ready = until(f"{container} starts", lambda: docker.event(container, "start"))
        times.append(until(f"{container} answers", lambda: traffic.first(container, ready - JOIN)) - ready)
    say(f"  first answer after {'registering' if pattern else 'its start'}: {seconds(times)}")
    expect(max(times) < JOIN, f"promised are {JOIN} s")


def settled(traffic, members):
    """Waits until nobody but these gets requests."""

    def only():
        begun = time.time()
        until("some requests", lambda: len(traffic.since(begun)) >= 40)
        return {s.backend for s in traffic.since(begun) if not s.failure} == set(members)

    until(f"only {sorted(members)} get requests", only)


def nothing_failed(traffic, *deaths):
    """No GET; no POST but those that a replica had, or whose connection it had, when it died without taking leave."""
    failures = traffic.failures()
    for sample in failures:
        excused = any(sample.sent < death + 1 and death < sample.done + 1 for death in deaths)
        expect(sample.method == "POST" and excused, f"failed: {sample}")
    say(f"  {len(traffic.since(0.0))} requests, {len(failures)} failed" + (", POST at a death" if failures else ""))


def kill(docker, container):
    run("docker", "kill", "--signal=KILL", container)
    return until(f"{container} ends", lambda: docker.event(container, "die"))


def listed():
    """Who is registered in BIND, as the program says that the recipe brings along for the health check."""
    query = ["/opt/evenkeel/evenkeel", "query", "--resolver", "127.0.0.1:53", "_http._tcp.web.svc.test"]
    answer = compose("exec", "-T", "dns", *query, check=False)
    return set(re.findall(r"\b([0-9a-f]{12})\.web\.svc\.test", answer))


def take_out(container):
    """By hand, as docs/compose.md has it."""
    host = f"{container}.web.svc.test"
    orders = [f"server {os.environ['EVENKEEL_NET']}.53", "zone svc.test"]
    orders += [f"update delete _http._tcp.web.svc.test SRV 0 1 8080 {host}", f"update delete {host}", "send"]
    with tempfile.NamedTemporaryFile("w", suffix=".key") as key:
        key.write(compose("exec", "-T", "dns", "cat", "/keys/web.key"))
        key.flush()
        run("nsupdate", "-k", key.name, stdin="\n".join(orders) + "\n")


def bind(docker):
    up()
    three = running("web", 3)
    answering("/", three)
    hardened()
    traffic = Traffic("/")
    try:
        equal_shares(traffic, three)

        say("3 -> 4 -> 2 replicas")
        scale(web=4)
        four = running("web", 4)
        joined(docker, traffic, four - three, REGISTERED)
        scale(web=2)
        two = running("web", 2)
        for gone in four - two:
            until(f"{gone} withdraws", lambda: docker.line(gone, WITHDRAWN))
            expect(traffic.last(gone) < docker.event(gone, "die") - 0.5, f"{gone} got requests until its end")
        until("BIND lists the two", lambda: listed() == two)
        settled(traffic, two)
        nothing_failed(traffic)

        say("BIND restarts")
        begun = time.time()
        compose("restart", "dns")
        until("BIND lists the two", lambda: listed() == two)
        say(f"  both are in DNS {time.time() - begun:.1f} s after it was told to")
        settled(traffic, two)
        nothing_failed(traffic)

        say("one of 2 is killed")
        victim = min(two)
        died = kill(docker, victim)
        settled(traffic, two - {victim})
        until("the other one has renewed", lambda: time.time() > died + 4)
        expect(victim in listed(), "BIND has leases after all")
        settled(traffic, two - {victim})
        say("  its record stays, and nobody is sent there")
        take_out(victim)
        until("it is taken out by nsupdate", lambda: victim not in listed())
        run("docker", "start", victim)
        until(f"{victim} answers again", lambda: traffic.first(victim, died + 1))
        nothing_failed(traffic, died)
    finally:
        traffic.stop()


def plain(docker):
    up()
    three = running("plain", 3)
    answering("/", three)
    hardened()
    traffic = Traffic("/")
    try:
        equal_shares(traffic, three)
        say("3 -> 5 -> 2 replicas")
        scale(plain=5)
        five = running("plain", 5)
        joined(docker, traffic, five - three)
        scale(plain=2)
        two = running("plain", 2)
        # They take no leave.
        ends = [until(f"{gone} ends", lambda: docker.event(gone, "die")) for gone in five - two]
        told = [docker.event(gone, "kill") for gone in five - two]
        settled(traffic, two)
        late = [traffic.last(gone) - end for gone, end in zip(five - two, ends)]
        say(f"  last request that each answered, after its end: {seconds(late)}")
        say("one of 2 is killed")
        ends.append(kill(docker, max(two)))
        settled(traffic, {min(two)})
        nothing_failed(traffic, *ends, *told)
    finally:
        traffic.stop()

    say("the same by SRV records: --synth")
    os.environ["COMPOSE_FILE"] += ":" + os.environ["COMPOSE_FILE"].replace("docker-compose.yml", "synth.yml")
    run("docker", "rm", "-f", *containers("plain", "status=exited"))
    up()
    three = running("plain", 3)
    answering("/", three)
    hardened()
    query = ["evenkeel", "query", "--resolver", "127.0.0.1:53", "_http._tcp.plain.svc.test"]
    say("  " + compose("exec", "-T", "dns", *query).strip().replace("\n", "\n          "))
    traffic = Traffic("/")
    try:
        settled(traffic, three)
        nothing_failed(traffic)
    finally:
        traffic.stop()


def shares(traffic, wanted):
    """Who gets what, in the proportions that the registry gives."""
    counts = traffic.shares(400)
    total, weights = sum(counts.values()), sum(wanted.values())
    say("  " + ", ".join(f"{name} {counts[name] / total:.1%}" for name in sorted(counts)))
    expect(set(counts) == set(wanted), f"served by {dict(counts)}")
    for name, weight in wanted.items():
        expect(abs(counts[name] / total - weight / weights) < 0.04, f"{name} should have {weight} of {weights}")


def fixed(docker, weights, standby=None, **holds):
    """Backends at addresses that the registry was given, with weights."""
    up()
    answering("/", set(weights))
    hardened(**holds)
    traffic = Traffic("/")
    try:
        shares(traffic, weights)
        heaviest = max(weights, key=weights.get)
        say(f"{heaviest} is stopped")
        stopped = [time.time()]
        compose("stop", "-t", "15", heaviest)
        rest = {name: weight for name, weight in weights.items() if name != heaviest}
        settled(traffic, rest)
        shares(traffic, rest)
        if standby:
            say("the others are stopped")
            stopped.append(time.time())
            compose("stop", "-t", "15", *rest)
            settled(traffic, {standby})
            say(f"  {standby} has taken over")
            compose("start", heaviest, *rest)
            settled(traffic, weights)
        nothing_failed(traffic, *(moment + wait for moment in stopped for wait in range(16)))
    finally:
        traffic.stop()


RECIPES = {
    "bind": bind,
    "plain": plain,
    "coredns": lambda docker: fixed(docker, {"b1": 60, "b2": 30, "b3": 10}, "standby", dns=["NET_BIND_SERVICE"]),
    "consul": lambda docker: fixed(docker, {"b1": 3, "b2": 2, "b3": 1}),
}


def stop(*_):
    # Once is enough: what follows is the clean-up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


signal.signal(signal.SIGTERM, stop)
docker = Docker()
try:
    RECIPES[sys.argv[2]](docker)
except Broken as broken:
    say(f"BROKEN: {broken}")
    sys.exit(1)
finally:
    docker.close()
