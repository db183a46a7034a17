"""Traffic for tests/bind.rs from the HTTP clients of Python's standard library, over HTTPS.

Three threads, one per habit: http.client on one kept-alive connection, http.client with a new
connection for each request, and urllib.request. GET and POST in turn; every POST has an id of its
own in `X-Id` and at the start of its body. Runs until standard input is closed, then prints one
JSON object: requests by habit, what failed, the ids that were answered with 200 and those that
were not.

usage: client.py PORT CA_FILE
"""

import http.client
import json
import ssl
import sys
import threading
import time
import urllib.request

PORT = int(sys.argv[1])
TLS = ssl.create_default_context(cafile=sys.argv[2])
# Between two requests of one thread, in seconds.
PAUSE = 0.01

stop = threading.Event()
lock = threading.Lock()
report = {"requests": {}, "failures": [], "confirmed": [], "unknown": []}


def connection():
    return http.client.HTTPSConnection("localhost", PORT, timeout=10, context=TLS)


def exchange(client, method, path, body, headers):
    client.request(method, path, body, headers)
    response = client.getresponse()
    response.read()
    return response.status


class KeepAlive:
    """One connection for all requests; the server has no reason to close it."""

    def __init__(self):
        self.client = connection()

    def __call__(self, method, path, body, headers):
        return exchange(self.client, method, path, body, headers)

    def recover(self):
        self.client.close()
        self.client = connection()


class NewEachTime:
    def __call__(self, method, path, body, headers):
        client = connection()
        try:
            return exchange(client, method, path, body, headers)
        finally:
            client.close()

    def recover(self):
        pass


class Urllib:
    def __call__(self, method, path, body, headers):
        url = f"https://localhost:{PORT}{path}"
        request = urllib.request.Request(url, data=body, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=10, context=TLS) as response:
            response.read()
            return response.status

    def recover(self):
        pass


def run(name, habit):
    count = 0
    while not stop.is_set():
        count += 1
        method, body, headers, identity = "GET", None, {}, None
        # Some are under way for longer, so that changes find them so.
        path = "/delay/120" if count % 10 == 0 else "/"
        if count % 2 == 0:
            method = "POST"
            identity = f"python-{name}-{count}"
            body = f"{identity}:{'x' * (count * 7 % 3000)}".encode()
            headers = {"X-Id": identity}
        try:
            status = habit(method, path, body, headers)
            failure = None if status == 200 else f"status {status}"
        except Exception as error:  # whatever it is, it is a failed request
            failure = repr(error)
            habit.recover()
        with lock:
            report["requests"][name] = count
            if failure is not None:
                report["failures"].append(f"{name} #{count} {method} {path}: {failure}")
            if identity is not None:
                report["unknown" if failure else "confirmed"].append(identity)
        time.sleep(PAUSE)


threads = [
    threading.Thread(target=run, args=(name, habit))
    for name, habit in (
        ("keep_alive", KeepAlive()),
        ("new_each_time", NewEachTime()),
        ("urllib", Urllib()),
    )
]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps(report))
