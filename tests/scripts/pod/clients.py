"""Clients of a Service that keep books. They are threads in a network of their own, where new
connections to the Service's address go to one of its pods; nobody but they sees more than that address.

Kept connections and new ones, HTTP/1.1 and HTTP/2, by Python's library, by curl, and by streams.py;
bodies that go up and down slowly, and WebSockets. Together about 150 requests per second.
"""

import collections
import ctypes
import http.client
import itertools
import json
import socket
import ssl
import subprocess
import threading
import time

import streams
from checks import expect
from ledger import Ledger, Sample
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

CLONE_NEWNET = 0x40000000
# For one short request, and for a slow transfer beyond the time that it takes by itself.
PATIENCE = 10
# Slow transfers: bytes, and bytes per second. So each takes four seconds.
DOWNLOAD, UPLOAD, RATE = 12_000_000, 4_000_000, {"download": 3_000_000, "upload": 1_000_000}
# A response that is read slowly until it is to end, in bytes: more than anybody reads in that time.
LASTING = 40_000_000
# A WebSocket, in seconds: how long it is open, and between two messages.
SESSION, BETWEEN = 4.0, 0.2
# What curl is told to speak.
VERSIONS = ["--http2", "--http1.1"]
# What curl writes for each of its requests.
WRITTEN = "%{http_code} %{size_download} %{time_total} %header{x-backend} %{num_connects} %{http_version} %{exitcode} "
WRITTEN += "%{errormsg}\\n"
# The same where standard output is for the response itself.
AT_THE_END = "%{stderr}%{http_code} %header{x-backend} %{exitcode} %{errormsg}"


class Target:
    """Where clients go. `authority` is a file, or None for a port without TLS, which only `ask` knows."""

    def __init__(self, network, address, port, host, authority):
        self.network, self.address, self.port, self.host = network, address, port, host
        self.authority = authority
        self.scheme = "https" if authority else "http"

    def context(self, *protocols):
        context = ssl.create_default_context(cafile=self.authority)
        context.set_alpn_protocols(protocols or ["http/1.1"])
        return context

    def enter(self):
        """This thread, and the programs that it calls, are in the clients' network from now on."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(self.network, "rb") as network:
            if libc.setns(network.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def url(self, path):
        return f"{self.scheme}://{self.host}:{self.port}{path}"

    def open(self, context):
        """A connection for http.client."""
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=PATIENCE, context=context)
        # It resolves no name: the address is the Service's.
        connection._create_connection = lambda _, *rest: socket.create_connection((self.address, self.port), *rest)
        return connection

    def curl(self, *arguments, output="/dev/null", written=WRITTEN):
        command = ["curl", "--silent", "--show-error", "--output", output, "--write-out", written]
        command += ["--connect-to", f"::{self.address}:{self.port}", "--max-time", "60"]
        return [*command, *(["--cacert", self.authority] if self.authority else []), *arguments]


class Threads(Ledger):
    """One for each habit, in the clients' network: its method and what that is called with."""

    def __init__(self, target, name):
        super().__init__()
        self.target, self.name = target, name
        self.stopping = threading.Event()
        self.kinds = collections.Counter()
        # What else was seen.
        self.seen = collections.Counter()
        self.threads = [
            threading.Thread(target=self.live, args=(number, *habit), daemon=True)
            for number, habit in enumerate(self.habits())
        ]
        for thread in self.threads:
            thread.start()

    def live(self, number, habit, *arguments):
        self.target.enter()
        label = f"{self.name}-{habit.__name__}-{number}"
        try:
            habit(label, *arguments)
        except Exception as error:  # a client that is no more would hide failures
            self.note(habit.__name__, Sample(time.time(), time.time(), "?", None, f"{label} broke: {error!r}", label))

    def note(self, kind, sample):
        with self.lock:
            self.kinds[kind, sample.method] += 1
        self.enter(sample)

    def stop(self):
        """Lets what is under way come to its end."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def talk(self, identity, seconds):
        """A WebSocket on which what is said is said back: for so long, and no longer than until the end is near."""
        sent, backend, failure = time.time(), None, None
        try:
            session = WebSocket(self.target, f"/?id={identity}")
            backend = session.answer.headers["X-Backend"]
            while time.time() - sent < seconds and not self.stopping.is_set():
                session.protocol.send_text(identity.encode())
                said = session.next()
                if said is None:
                    break
                expect(said == identity.encode(), f"{said!r} came back")
                time.sleep(BETWEEN)
            # A backend that goes away says so.
            if session.close() == 1001:
                with self.lock:
                    self.seen["WebSockets that a backend closed, going away"] += 1
        except Exception as error:  # whatever it is, it is a failed session
            failure = repr(error)
        self.note("WebSocket", Sample(sent, time.time(), "GET", backend, failure, identity))


class WebSocket:
    """A client's end, by the library's protocol alone: its threads would read and write one TLS session at once."""

    def __init__(self, target, path):
        plain = socket.create_connection((target.address, target.port), timeout=PATIENCE)
        self.socket = target.context().wrap_socket(plain, server_hostname=target.host)
        self.protocol = ClientProtocol(parse_uri(f"wss://{target.host}:{target.port}{path}"))
        self.events = []
        self.protocol.send_request(self.protocol.connect())
        self.answer = self.event()
        expect(isinstance(self.answer, Response) and not self.protocol.handshake_exc, f"{self.protocol.handshake_exc!r}")

    def event(self):
        """The next thing that comes; None when nothing comes any more."""
        while not self.events:
            if data := b"".join(self.protocol.data_to_send()):
                self.socket.sendall(data)
            data = self.socket.recv(1 << 16)
            if not data:
                self.protocol.receive_eof()
                return None
            self.protocol.receive_data(data)
            self.events = self.protocol.events_received()
        return self.events.pop(0)

    def next(self):
        """The next message; None when the other side has closed."""
        while frame := self.event():
            if frame.opcode is Opcode.TEXT:
                return frame.data
            if frame.opcode is Opcode.CLOSE:
                return None
        raise ConnectionError("cut off without a close")

    def close(self):
        """Closes as it should be; returns the code that the other side gave."""
        with self.socket:
            if not self.protocol.close_rcvd:
                self.protocol.send_close(1000)
            # What is to be sent goes first.
            while self.event():
                pass
            expect(self.protocol.close_rcvd, "cut off without a close")
            return self.protocol.close_rcvd.code


class Clients(Threads):
    """Of all kinds, until they are stopped."""

    def habits(self):
        habits = [(self.plain, method, True, pause) for method, pause in [("GET", 0.06)] * 3 + [("POST", 0.1)] * 2]
        habits += [(self.plain, "GET", False, 0.15), (self.plain, "POST", False, 0.2)]
        habits += [(self.curl_once,), (self.transfer, "download"), (self.transfer, "upload"), (self.websocket,)]
        return [*habits, (self.streams,), (self.curl_kept,)]

    def numbers(self, label):
        """Identities, until it is to stop."""
        return (f"{label}-{count}" for count in itertools.takewhile(lambda _: not self.stopping.is_set(), itertools.count()))

    # --- habits

    def plain(self, label, method, keeps, pause):
        """http.client, with a kept connection or a new one for each request."""
        context, connection = self.target.context(), None
        kind = "HTTP/1.1, kept" if keeps else "HTTP/1.1, new"
        for identity in self.numbers(label):
            body = identity.encode() * 20 if method == "POST" else None
            sent, backend, failure = time.time(), None, None
            try:
                connection = connection or self.target.open(context)
                connection.request(method, f"/?id={identity}", body)
                response = connection.getresponse()
                said = response.read()
                backend = response.headers["X-Backend"]
                failure = wrong(response.status, said, identity, body)
            except Exception as error:  # whatever it is, it is a failed request
                failure = repr(error)
            if connection and (failure or not keeps):
                connection.close()
                connection = None
            self.note(kind, Sample(sent, time.time(), method, backend, failure, identity))
            time.sleep(pause)

    def streams(self, label):
        """HTTP/2 on a kept connection, several at once."""
        context = self.target.context("h2")
        numbers = self.numbers(label)

        def think():
            identity = next(numbers, label)
            count = int(identity.rsplit("-", 1)[-1]) if identity != label else 0
            method = "POST" if count % 3 == 0 else "GET"
            body = identity.encode() * 20 if method == "POST" else b""
            # Some are under way for longer, so that what happens finds them so.
            delay = "&delay=400ms" if count % 4 == 0 else ""
            fields = [(":method", method), (":scheme", "https"), (":authority", f"{self.target.host}:{self.target.port}")]
            fields += [(":path", f"/?id={identity}{delay}")]
            return (identity, method, body, time.time()), fields, body

        def tell(what, fields, said, failure):
            identity, method, body, sent = what
            failure = failure or wrong(int(fields[":status"]), said, identity, body)
            self.note("HTTP/2, kept", Sample(sent, time.time(), method, fields.get("x-backend"), failure, identity))

        def opened():
            self.seen["connections of HTTP/2"] += 1
            return streams.tls_socket((self.target.address, self.target.port), context, self.target.host)

        client = streams.Client(opened, think, tell, 0.04)
        client.run(self.stopping)
        self.seen["requests of HTTP/2 sent again, as GOAWAY said"] += client.again

    def curl_once(self, label):
        """A curl for each request, of either protocol in turn."""
        for number, identity in enumerate(self.numbers(label)):
            method = "POST" if number // 2 % 2 else "GET"
            flags = [VERSIONS[number % 2]]
            if method == "POST":
                flags += ["--data-binary", identity * 20]
            self.curl("curl, new", method, [identity], flags, None)
            time.sleep(0.15)

    def curl_kept(self, label):
        """A curl for many requests, one after the other on one connection of HTTP/2."""
        for name in self.numbers(label):
            self.curl("curl, kept", "GET", [f"{name}-{number}" for number in range(50)], ["--http2", "--rate", "20/s"], None)

    def transfer(self, label, kind):
        """A body that goes slowly, of either protocol in turn."""
        with open("/dev/zero", "rb") as zero:
            data = zero.read(UPLOAD)
        for number, identity in enumerate(self.numbers(label)):
            flags = [VERSIONS[number % 2], "--limit-rate", str(RATE[kind])]
            if kind == "download":
                self.curl(kind, "GET", [identity], flags, DOWNLOAD, f"&bytes={DOWNLOAD}")
            else:
                self.curl(kind, "POST", [identity], [*flags, "--data-binary", "@-"], None, stdin=data)

    def curl(self, kind, method, identities, flags, size, query="", stdin=None):
        urls = [self.target.url(f"/?id={identity}{query}") for identity in identities]
        # One output for each.
        more = ["--output", "/dev/null"] * (len(urls) - 1)
        process = subprocess.Popen(
            self.target.curl(*more, *flags, *urls), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        begun = time.time()
        if stdin:
            feeder = threading.Thread(target=feed, args=(process.stdin, stdin), daemon=True)
            feeder.start()
        else:
            process.stdin.close()
        lines, connects, complaints = iter(identities), 0, []
        for line in process.stdout:
            words = line.decode(errors="replace").rstrip("\n").split(" ", 7)
            if len(words) < 7 or not words[0].isdigit():
                complaints.append(line.decode(errors="replace").strip())
                continue
            status, got, took, backend, connected, _, code, *message = words
            connects += int(connected)
            failure = None
            if int(code) != 0 or int(status) != 200:
                failure = f"curl {code}, status {status}: {' '.join(message)} {complaints}"
            elif size is not None and int(got) != size:
                failure = f"{got} of {size} bytes"
            now = time.time()
            sent = max(begun, now - float(took))
            self.note(kind, Sample(sent, now, method, backend or None, failure, next(lines)))
        process.wait()
        for identity in lines:
            failure = f"curl ended with {process.returncode} before it: {complaints}"
            self.note(kind, Sample(begun, time.time(), method, None, failure, identity))
        if len(identities) > 1:
            self.seen["connections of curl, kept"] += connects

    def websocket(self, label):
        """One after the other, for some seconds each."""
        for identity in self.numbers(label):
            self.talk(identity, SESSION)


class Lasting(Threads):
    """What goes on until it is told to come to its end, for as long as that may be: a response and a body over
    each protocol, and a WebSocket."""

    def habits(self):
        both = [(habit, version) for habit in (self.download, self.upload) for version in VERSIONS]
        return [*both, (self.websocket,)]

    def download(self, label, version):
        """The other side is held up as long as nobody reads more."""
        begun, got = time.time(), 0
        url = self.target.url(f"/?id={label}&bytes={LASTING}")
        command = self.target.curl(version, "--max-time", "300", url, output="-", written=AT_THE_END)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while piece := process.stdout.read(1 << 16):
            got += len(piece)
            # Some 250 KB in a second, then as fast as it comes.
            self.stopping.wait(0.25)
        self.told(f"download, {version}", "GET", label, begun, process, f"{got} of {LASTING} bytes", got == LASTING)

    def upload(self, label, version):
        begun, sent = time.time(), 0
        flags = [version, "--request", "POST", "--upload-file", "-", "--max-time", "300"]
        command = self.target.curl(*flags, self.target.url(f"/?id={label}"), output="-", written=AT_THE_END)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            while not self.stopping.wait(0.1):
                process.stdin.write(b"x" * 10_000)
                process.stdin.flush()
                sent += 10_000
            process.stdin.close()
        except OSError:
            # curl says why it has gone.
            pass
        said = process.stdout.read()
        arrived = f'"body_length":{sent},'.encode() in said.replace(b" ", b"")
        self.told(f"upload, {version}", "POST", label, begun, process, f"not {sent} bytes: {said[:200]!r}", arrived)

    def told(self, kind, method, label, begun, process, otherwise, is_whole):
        written = process.stderr.read().decode(errors="replace")
        process.wait()
        status, backend, code, *message = written.split(" ", 3) + [""] * 3
        failure = None if is_whole else otherwise
        if status != "200" or code != "0":
            failure = f"curl {code}, status {status}: {' '.join(message)}; {otherwise}"
        self.note(kind, Sample(begun, time.time(), method, backend, failure, label))

    def websocket(self, label):
        self.talk(label, 300)


class Waiting(Threads):
    """GETs that take four seconds each, all at once: long enough to see them arrive, and to kill somebody."""

    COUNT = 12

    def habits(self):
        return [(self.get,)] * self.COUNT

    def get(self, label):
        sent, failure, backend = time.time(), None, None
        command = self.target.curl("--http1.1", self.target.url(f"/?id={label}&delay=4s"))
        done = subprocess.run(command, capture_output=True, text=True, timeout=70, check=False)
        status, _, _, backend, *rest = done.stdout.split(" ", 7)
        if status != "200":
            failure = f"status {status}: {rest}"
        self.note("waiting", Sample(sent, time.time(), "GET", backend, failure, label))


def feed(pipe, data):
    try:
        pipe.write(data)
        pipe.close()
    except OSError:
        # curl says why it has gone.
        pass


def wrong(status, said, identity, body):
    """What is wrong with an answer of the sample backend, or None."""
    if status != 200:
        return f"status {status}: {said[:300]!r}"
    try:
        told = json.loads(said)
    except ValueError:
        return f"cut off or not JSON: {said[:300]!r}"
    if f"id={identity}" not in told["target"] or told["body_length"] != len(body or b""):
        return f"the answer to another request: {said[:300]!r}"
    return None


def ask(target, path="/", version="--http1.1"):
    """One request by curl; returns what curl wrote about it. To be called by a thread of the clients' network."""
    done = subprocess.run(target.curl(version, target.url(path)), capture_output=True, text=True, timeout=70, check=False)
    return done.stdout.split(" ", 7)
