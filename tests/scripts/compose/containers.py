"""The containers, by docker-compose and by what Docker says of them.

environment: COMPOSE (docker-compose unless set), COMPOSE_PROJECT_NAME
"""

import collections
import json
import os
import re
import shlex
import subprocess
import threading

from checks import until
from commands import run, stamp

COMPOSE = shlex.split(os.environ.get("COMPOSE", "docker-compose"))
PROJECT = os.environ["COMPOSE_PROJECT_NAME"]


def compose(*arguments, **options):
    return run(*COMPOSE, *arguments, **options)


def scale(**replicas):
    flags = [f"--scale={service}={count}" for service, count in replicas.items()]
    compose("up", "-d", *flags, *replicas)


def containers(service, *filters):
    """Ids of the running ones, 12 digits: what a container calls itself."""
    labels = [f"label=com.docker.compose.{key}={value}" for key, value in (("project", PROJECT), ("service", service))]
    flags = [f"--filter={wanted}" for wanted in (*labels, *(filters or ["status=running"]))]
    return set(run("docker", "ps", "-aq", *flags).split())


def one(members):
    (member,) = members
    return member


def running(service, count):
    """Waits until there are so many; returns them."""
    return until(f"{count} of {service} run", lambda: r if len(r := containers(service)) == count else None)


class Docker:
    """What Docker says as it happens: events, and every log line of the zone and the backends."""

    def __init__(self):
        self.lock = threading.Lock()
        self.events = []  # (time, container, action)
        self.lines = collections.defaultdict(list)  # container: (time, text)
        # When replicas ended without taking leave; the story says which.
        self.deaths = []
        self.readers = []
        self.source = self.open("events", f"--filter=label=com.docker.compose.project={PROJECT}", "--format={{json .}}")
        threading.Thread(target=self.follow_events, daemon=True).start()

    def open(self, *arguments):
        reader = subprocess.Popen(["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.readers.append(reader)
        return reader

    def follow_events(self):
        for line in self.source.stdout:
            event = json.loads(line)
            if event.get("Type") != "container":
                continue
            container, action = event["id"][:12], event["Action"]
            with self.lock:
                self.events.append((event["timeNano"] / 1e9, container, action))
            service = event["Actor"]["Attributes"].get("com.docker.compose.service")
            if action == "start" and service in ("dns", "web", "plain", "own"):
                since = f"--since={event['timeNano'] // 10**9}"
                reader = self.open("logs", "-f", "-t", since, event["id"])
                threading.Thread(target=self.follow_lines, args=(container, reader), daemon=True).start()

    def follow_lines(self, container, reader):
        for line in reader.stdout:
            when, _, text = line.rstrip("\n").partition(" ")
            try:
                entry = (stamp(when), text)
            except ValueError:  # Docker's own words
                continue
            with self.lock:
                self.lines[container].append(entry)

    def event(self, container, action, after=0.0):
        """When that happened to the container first; None if it has not yet."""
        with self.lock:
            found = (t for t, c, a in self.events if c == container and a == action and t >= after)
            return next(found, None)

    def line(self, container, pattern, after=0.0):
        """When the container wrote that first; None if it has not yet."""
        with self.lock:
            found = (t for t, text in self.lines[container] if t >= after and re.search(pattern, text))
            return next(found, None)

    def posts(self):
        """How often each POST was carried out, by the replicas' own words."""
        with self.lock:
            members = list(self.lines)
        return sum((self.posts_of(member) for member in members), collections.Counter())

    def posts_of(self, container):
        """The same of one replica. It writes them down when it has read them, before it answers."""
        with self.lock:
            texts = "\n".join(text for _, text in self.lines[container])
        return collections.Counter(re.findall(r"\bPOST /\S*?\?id=([^\s&\"]+)", texts))

    def close(self):
        for reader in self.readers:
            reader.terminate()
            reader.wait()
