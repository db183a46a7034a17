"""Clients that keep books, over HTTPS.

environment: PORT; first argument: the file of the authority
"""

import functools
import http.client
import os
import ssl
import sys
import threading
import time

from checks import until
from ledger import Ledger, Sample

HOST, PORT = "127.0.0.1", int(os.environ["PORT"])


@functools.cache
def tls():
    """The file is made while the story is told."""
    return ssl.create_default_context(cafile=sys.argv[1])


def exchange(connection, method, path, identity=None):
    """One request, on a new connection if there is none; returns the connection if it can be kept."""
    sent, backend, failure = time.time(), None, None
    try:
        connection = connection or http.client.HTTPSConnection(HOST, PORT, timeout=10, context=tls())
        connection.request(method, path, identity and identity.encode() * 20)
        response = connection.getresponse()
        body = response.read()
        backend = response.headers["X-Backend"]
        if response.status != 200:
            failure = f"status {response.status}: {body[:200]!r}"
    except Exception as error:  # whatever it is, it is a failed request
        failure = repr(error)
    if connection and failure:
        connection.close()
        connection = None
    return connection, Sample(sent, time.time(), method, backend, failure, identity)


class Traffic(Ledger):
    """Clients of one path. Each is a thread: method, whether it keeps its connection, pause.

    Together at most about 150 requests per second; the machine is a small one.
    """

    HABITS = [("GET", True, 0.05)] * 4 + [("GET", False, 0.1)] + [("POST", True, 0.1)] * 2 + [("POST", False, 0.2)]

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self.client, args=(number, *habit), daemon=True)
            for number, habit in enumerate(self.HABITS)
        ]
        for thread in self.threads:
            thread.start()

    def client(self, number, method, keeps, pause):
        connection, count = None, 0
        while not self.stopping.is_set():
            count += 1
            identity = f"{self.path.strip('/') or 'web'}-{number}-{count}" if method == "POST" else None
            query = f"?id={identity}" if identity else ""
            connection, sample = exchange(connection, method, self.path + query, identity)
            if connection and not keeps:
                connection.close()
                connection = None
            self.enter(sample)
            time.sleep(pause)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


class Hanging:
    """POST that take five seconds each, all at once: long enough to see them arrive and to kill somebody."""

    def __init__(self, count):
        self.identities = [f"hanging-{number}" for number in range(count)]
        self.samples = {}
        self.threads = [threading.Thread(target=self.post, args=(i,), daemon=True) for i in self.identities]
        for thread in self.threads:
            thread.start()

    def post(self, identity):
        connection, self.samples[identity] = exchange(None, "POST", f"/?id={identity}&delay=5s", identity)
        if connection:
            connection.close()

    def failed(self):
        """Ids of those that failed, when all have ended."""
        for thread in self.threads:
            thread.join()
        return {identity for identity, sample in self.samples.items() if sample.failure}


def answering(path, backends):
    """Waits until each of them has answered: before that, clients may knock in vain."""
    seen = set()

    def ask():
        connection, sample = exchange(None, "GET", path)
        if connection:
            connection.close()
        seen.add(sample.backend)
        return seen >= backends

    until(f"{path} is answered by all of {sorted(backends)}", ask)
