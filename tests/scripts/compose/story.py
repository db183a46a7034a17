"""The story of docker-compose.yml under HTTPS traffic: replicas come, go, die and are replaced.

tests/compose.sh builds the images, sets the variables that docker-compose.yml reads, calls this
and cleans up after it. Told on the way: what happened, and how many seconds it took to be in
effect. Ends with 1 as soon as something does not hold.

What is believed: the clients' own books for the requests, Docker's time stamps of events and log
lines for what the containers did, and, for whether a POST was carried out, what the replicas wrote
about it, not what a response said.

usage: story.py CA_FILE
environment: as in containers.py and traffic.py
"""

import json
import os
import re
import signal
import sys
import time

from checks import Broken, expect, say, seconds, until
from commands import run
from containers import PROJECT, Docker, compose, containers, one, running, scale
from ledger import equal_shares
from traffic import Hanging, Traffic, answering

NAME = "_http._tcp.web.svc.test"
# As docker-compose.yml has it, in seconds.
LEASE = 6.0
# From being registered to the first answer.
JOIN = 3.0
# What a replica writes when the zone knows it, and when it no longer does.
REGISTERED, WITHDRAWN = r"registered _http\._tcp\.web", r"withdrew _http\._tcp\.web"
# What the zone writes when a replica did not renew.
RAN_OUT = "its lease ran out"


def joined(docker, traffic, newcomers, registered):
    """Waits for a first answer from each newcomer; prints the time from registered to answered."""
    times = []
    for container in newcomers:
        if registered:
            ready = until(f"{container} registers", lambda: docker.line(container, REGISTERED))
        else:
            ready = until(f"{container} starts", lambda: docker.event(container, "start"))
        answered = until(f"{container} answers", lambda: traffic.first(container, ready - JOIN))
        times.append(answered - ready)
    say(f"  first answer after {'registering' if registered else 'its start'}: {seconds(times)}")
    for time_taken in times:
        expect(time_taken < JOIN, f"{time_taken:.2f} s, promised are {JOIN} s")


def left(docker, traffic, gone, withdrawn):
    """Prints for how long the ones that are gone still got requests after they said goodbye."""
    times = []
    for container in gone:
        died = until(f"{container} ends", lambda: docker.event(container, "die"))
        last = traffic.last(container)
        if withdrawn:
            told = docker.event(container, "kill")
            expect(told, f"{container} was never told to stop")
            # Docker notes the signal when it has sent it, and a replica may be quicker than that.
            expect(docker.line(container, WITHDRAWN, told - 1), f"{container} did not withdraw")
            times.append(last - told)
            # What is left of its linger is a margin: nobody knocks at a door that has been closed.
            expect(last < died - 0.5, f"{container} got a request {died - last:.2f} s before its end")
        else:
            docker.deaths.append(died)
            times.append(last - died)
    say(f"  last request to it after {'TERM' if withdrawn else 'its end'}: {seconds(times)}")


def nothing_failed(docker, *traffics):
    """No GET; no POST but those under way when a replica died without taking leave, which may not be repeated."""
    for sample in (s for traffic in traffics for s in traffic.failures()):
        # Docker notes a death when it has happened, a moment later. What is sent after it has no excuse.
        excused = any(sample.sent < death < sample.done + 1 for death in docker.deaths)
        expect(sample.method == "POST" and excused, f"failed: {sample}")


def in_dns(*members):
    """Are these, and nobody else, what the zone says?"""
    answer = compose("exec", "-T", "dns", "evenkeel", "query", "--resolver", "127.0.0.1:53", NAME, check=False)
    return set(re.findall(r"\b([0-9a-f]{12})\.web\.svc\.test", answer)) == set(members)


def hardened():
    """No container runs as root, can write to its image, or holds or gains a capability."""
    ids = run("docker", "ps", "-aq", f"--filter=label=com.docker.compose.project={PROJECT}").split()
    for container in json.loads(run("docker", "inspect", *ids)):
        name, config, host = container["Name"], container["Config"], container["HostConfig"]
        expect(config["User"] and not config["User"].startswith(("0", "root")), f"{name} runs as root")
        expect(host["ReadonlyRootfs"], f"{name} can write to its image")
        expect(host["CapDrop"] == ["ALL"] and not host["CapAdd"], f"{name} holds capabilities")
        expect("no-new-privileges:true" in host["SecurityOpt"], f"{name} can gain privileges")
        expect(not host["Privileged"], f"{name} is privileged")
    say(f"  {len(ids)} containers: no root, no capability, nothing of the image can be written to")


def tell(docker):
    say("up")
    begun = time.time()
    compose("up", "-d")
    replicas = running("web", 3)
    answering("/", replicas)
    say(f"  every replica answers, {time.time() - begun:.1f} s after `up`")
    until("the balancer says that it is well", lambda: containers("lb", "health=healthy"))
    web = Traffic("/")
    try:
        story(docker, web, replicas)
    finally:
        web.stop()


def story(docker, web, replicas):
    hardened()
    equal_shares(web, replicas)

    say("3 -> 5 replicas")
    scale(web=5)
    five = running("web", 5)
    joined(docker, web, five - replicas, registered=True)
    equal_shares(web, five)
    nothing_failed(docker, web)

    say("5 -> 2 replicas")
    scale(web=2)
    two = running("web", 2)
    left(docker, web, five - two, withdrawn=True)
    equal_shares(web, two)
    nothing_failed(docker, web)

    say("2 -> 3 replicas, one killed")
    scale(web=3)
    three = running("web", 3)
    joined(docker, web, three - two, registered=True)
    until("the zone knows all", lambda: in_dns(*three))
    # Some are under way at that moment.
    hanging = Hanging(2 * len(three))
    until("all have arrived", lambda: docker.posts().keys() >= set(hanging.identities))
    # Each worker of the balancer takes turns on its own, so how many each replica has is chance.
    held = {container: docker.posts_of(container).keys() & set(hanging.identities) for container in three}
    killed = max(three, key=lambda container: len(held[container]))
    lost = held[killed]
    run("docker", "kill", "--signal=KILL", killed)
    died = until(f"{killed} ends", lambda: docker.event(killed, "die"))
    docker.deaths.append(died)
    zone = one(containers("dns"))
    ran_out = until("its lease ends", lambda: docker.line(zone, f"{killed}.*{RAN_OUT}|{RAN_OUT}.*{killed}", died))
    gone = ran_out - died
    until("the zone knows the others", lambda: in_dns(*three - {killed}))
    slowest = max(s.done - s.sent for s in web.since(died - 1))
    say(f"  gone from DNS after {gone:.1f} s (lease {LEASE:.0f} s); slowest request {slowest:.2f} s")
    expect(gone < LEASE + 2, "a lease outlives its replica")
    failed = hanging.failed()
    say(f"  {len(hanging.identities)} slow POST were under way, {len(lost)} of them on it: {len(failed)} failed")
    expect(failed == lost and lost, f"failed: {failed}, on the replica that was killed: {lost}")
    equal_shares(web, three - {killed})
    nothing_failed(docker, web)
    run("docker", "rm", killed)
    scale(web=3)
    replicas = running("web", 3)
    joined(docker, web, replicas - three, registered=True)

    say("the zone restarts")
    begun = time.time()
    compose("restart", "dns")
    until("the zone knows all", lambda: in_dns(*replicas))
    say(f"  every replica is in DNS {time.time() - begun:.1f} s after it was told to")
    equal_shares(web, replicas)
    nothing_failed(docker, web)

    say("the zone is away for two leases")
    compose("stop", "dns")
    away = time.time()
    until("two leases are over", lambda: time.time() - away > 2 * LEASE)
    nothing_failed(docker, web)
    compose("start", "dns")
    back = time.time()
    for container in replicas:
        until(f"{container} is renewed", lambda: docker.line(container, "is renewed again", back - 1), LEASE)
    say(f"  every replica has renewed {time.time() - back:.1f} s after its return")
    zone = one(containers("dns"))
    expect(docker.line(zone, "", back - 1), "nothing is known of what the zone wrote")
    expect(not docker.line(zone, RAN_OUT, back - 1), "a lease ran out on a replica that lives")
    equal_shares(web, replicas)
    nothing_failed(docker, web)

    say("the zone restarts empty")
    begun = time.time()
    compose("rm", "-s", "-f", "dns")
    run("docker", "volume", "rm", f"{PROJECT}_zone")
    compose("up", "-d", "dns")
    until("the zone knows all", lambda: in_dns(*replicas))
    say(f"  every replica is in DNS {time.time() - begun:.1f} s after the old one was told to stop")
    equal_shares(web, replicas)
    nothing_failed(docker, web)

    say("all replicas are replaced, one by one")
    begun = time.time()
    run("bash", "deploy/roll.sh", "web", patience=180)
    rolled = containers("web")
    expect(len(rolled) == 3 and not rolled & replicas, f"{rolled} instead of {replicas}")
    say(f"  took {time.time() - begun:.1f} s")
    joined(docker, web, rolled, registered=True)
    left(docker, web, replicas, withdrawn=True)
    equal_shares(web, rolled)
    nothing_failed(docker, web)

    own_image(docker, web, rolled)
    plain = synthesised(docker)
    equal_shares(web, rolled)
    web.stop()
    plain.stop()
    nothing_failed(docker, web, plain)
    accounts(docker, web, plain)


def own_image(docker, web, replicas):
    """As docs/compose.md says for an image of one's own: `evenkeel register` in front of its command."""
    say("a stranger's image that registers, beside the replicas")
    image, name = os.environ["EVENKEEL_PLAIN_IMAGE"], f"{PROJECT}-own:test"
    recipe = f"FROM {image}\nCOPY --from={os.environ['EVENKEEL_IMAGE']} /usr/bin/evenkeel /usr/bin/evenkeel\n"
    register = ["evenkeel", "register", NAME, "--port=8080", "--ready=tcp", "--ttl=1s", "--lease=6s"]
    register += [f"--server={os.environ['EVENKEEL_NET']}.53", "--tsig-file=/keys/web.key", "--", "plain"]
    recipe += f"ENTRYPOINT {json.dumps(register)}\n"
    run("docker", "build", "--quiet", "--tag", name, "-", stdin=recipe)
    # The labels are those of a container of docker-compose, so that it is looked at and listened to like one.
    labels = [f"--label=com.docker.compose.{key}={value}" for key, value in (("project", PROJECT), ("service", "own"))]
    limits = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true"]
    network = [f"--network={PROJECT}_default", f"--volume={PROJECT}_keys:/keys:ro"]
    own = run("docker", "run", "--detach", *labels, *limits, *network, name).strip()[:12]
    joined(docker, web, [own], registered=True)
    equal_shares(web, replicas | {own})
    run("docker", "stop", "-t", "30", own)
    left(docker, web, [own], withdrawn=True)
    run("docker", "rm", own)
    nothing_failed(docker, web)


def synthesised(docker):
    """The profile `plain`: an image that registers nowhere, 2 -> 3 -> 1 replicas."""
    say("profile plain: an image that knows nothing of DNS, 2 replicas")
    compose("--profile", "plain", "up", "-d", "plain")
    two = running("plain", 2)
    answering("/plain", two)
    hardened()
    plain = Traffic("/plain")
    try:
        equal_shares(plain, two)
        say("  2 -> 3")
        scale(plain=3)
        three = running("plain", 3)
        joined(docker, plain, three - two, registered=False)
        equal_shares(plain, three)
        say("  3 -> 1")
        scale(plain=1)
        last = running("plain", 1)
        left(docker, plain, three - last, withdrawn=False)
        equal_shares(plain, last)
        nothing_failed(docker, plain)
    except BaseException:
        plain.stop()
        raise
    return plain


def accounts(docker, *traffics):
    """What was asked for and what was done."""
    say("accounts")
    for traffic in traffics:
        samples = traffic.since(0.0)
        posts = [s for s in samples if s.identity]
        failed = traffic.failures()
        say(f"  {traffic.path}: {len(samples) - len(posts)} GET, 0 failed; {len(posts)} POST, {len(failed)} failed")
        for sample in failed:
            say(f"    POST {sample.identity} when a replica died: {sample.failure}")
    confirmed = {s.identity for t in traffics for s in t.since(0.0) if s.identity and not s.failure}
    until("every POST that was answered with 200 was carried out", lambda: confirmed <= docker.posts().keys(), 5)
    twice = {identity: times for identity, times in docker.posts().items() if times > 1}
    expect(not twice, f"carried out more than once: {twice}")
    say(f"  {len(confirmed)} POST confirmed, each carried out once; none carried out twice")


def stop(*_):
    # Once is enough: what follows is the clean-up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


# As with Ctrl-C: whoever is told to stop ends what it has started.
signal.signal(signal.SIGTERM, stop)
docker = Docker()
try:
    tell(docker)
except Broken as broken:
    say(f"BROKEN: {broken}")
    sys.exit(1)
finally:
    docker.close()
