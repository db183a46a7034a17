#!/usr/bin/env python3
"""How many instructions a request costs, and in which functions; of two programs, where they differ.

    cargo build --release
    benches/instructions.py target/release/evenkeel [ANOTHER]

Where cores are shared, time lies by more than most changes are worth. Instructions are the same each time to
less than one in a hundred. They are not time: a copy of 272 bytes is some 40 of them, and what it waits for is
none. So this says which change brought work in; that it is gone, `cargo bench --bench compare` says.

The program runs under valgrind (callgrind) with one worker and no access log. This script is its backend and
its client: a request on each of some kept connections, then all the answers, again and again. Counting begins
when it is warm.
"""

import argparse
import collections
import re
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

REQUEST = (
    b"GET /some/path?a=b HTTP/1.1\r\nHost: bench.test\r\n"
    b"User-Agent: instructions\r\nAccept: */*\r\n\r\n"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: backend\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nok\n"
)
LAST = b"\r\n\r\nok\n"
CONNECTIONS = 32
WARM_UP = 40  # requests on each connection: pools and buffers have what they need
START = 120  # seconds that a program has until it listens: valgrind is slow, and so is a busy machine


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("other", nargs="?", help="to be set beside it")
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--tls", action="store_true", help="between the client and the program")
    parser.add_argument("--lines", type=int, default=40, help="functions that are listed")
    options = parser.parse_args()
    counts = [count(program, options) for program in (options.program, options.other) if program]
    for program, (functions, _) in zip((options.program, options.other), counts):
        print(f"{sum(functions.values()):8.0f} instructions a request: {program}")
    before = counts[0] if options.other else (collections.Counter(), collections.Counter())
    report(before, counts[-1], options.lines)


def report(before, after, lines):
    """Prints the functions that differ most, callees left out."""
    (costs, calls), (new_costs, new_calls) = before, after
    names = sorted(costs | new_costs, key=lambda name: -abs(new_costs[name] - costs[name]))
    print("  differs     before (calls)         after (calls)")
    for name in names[:lines]:
        print(
            f"{new_costs[name] - costs[name]:+9.0f} {costs[name]:10.0f} ({calls[name]:5.2f}) "
            f"{new_costs[name]:13.0f} ({new_calls[name]:5.2f})  {name[:120]}"
        )


def count(program, options):
    """Instructions and calls a request, by function."""
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        folder = Path(folder)
        listening = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
        threading.Thread(target=answer, args=(listening,), daemon=True).start()
        front = ("127.0.0.1", free_port())
        write_configuration(folder, front[1], listening.getsockname()[1], options.tls)
        counted = folder / "counted"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counted}", program]
        with open(folder / "log", "w+") as log:
            process = subprocess.Popen(
                [*command, "run", "-c", folder / "evenkeel.toml"], stdout=subprocess.DEVNULL, stderr=log
            )
            try:
                if not listens(process, front):
                    log.seek(0)
                    sys.exit(log.read())
                connections = [connect(folder, front, options.tls) for _ in range(CONNECTIONS)]
                ask(connections, WARM_UP)
                control(process, "--zero")
                each = max(options.requests // CONNECTIONS, 1)
                ask(connections, each)
                control(process, "--dump")
            finally:
                process.kill()
                process.wait()
        return read(f"{counted}.1", each * CONNECTIONS)


def write_configuration(folder, front, backend, tls):
    certificates = ""
    if tls:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-days", "2", "-subj", "/CN=bench.test", "-addext", "subjectAltName=DNS:bench.test"]
            + ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
            check=True,
            capture_output=True,
        )
        certificates = f'certificates = [{{ cert = "{folder}/cert.pem", key = "{folder}/key.pem" }}]'
    (folder / "evenkeel.toml").write_text(
        f"""workers = 1

[[listener]]
address = "127.0.0.1:{front}"
protocol = "{'https' if tls else 'http'}"
{certificates}

[[service]]
name = "web"
discover = {{ static = ["127.0.0.1:{backend}"] }}
max_idle = 512

[[route]]
service = "web"

[log]
access = "off"
"""
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def listens(process, front):
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(front, 5).close()
            return True
        except OSError:
            time.sleep(0.2)
    return False


def connect(folder, front, tls):
    connection = socket.create_connection(front, 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        context = ssl.create_default_context(cafile=folder / "cert.pem")
        connection = context.wrap_socket(connection, server_hostname="bench.test")
    return connection


def ask(connections, times):
    for _ in range(times):
        for connection in connections:
            connection.sendall(REQUEST)
        for connection in connections:
            came = b""
            while not came.endswith(LAST):
                more = connection.recv(65536)
                if not more:
                    sys.exit("a connection was closed")
                came += more
            if not came.startswith(b"HTTP/1.1 200 "):
                sys.exit(came.decode(errors="replace"))


def answer(listening):
    """The backend. Nobody sends it a part of a request, or two at once."""
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                accepted, _ = listening.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(accepted, selectors.EVENT_READ)
            elif key.fileobj.recv(65536):
                key.fileobj.sendall(RESPONSE)
            else:
                selector.unregister(key.fileobj)
                key.fileobj.close()


def control(process, what):
    subprocess.run(["callgrind_control", what, str(process.pid)], check=True, capture_output=True)


def read(path, requests):
    """Callgrind's format: a name is given once, with a number; behind `calls=` comes what the callee took."""
    names = {}
    costs, calls = collections.Counter(), collections.Counter()

    def name(text):
        number, given = re.match(r"\((\d+)\)(?: (.*))?", text).groups()
        if given:
            # One symbol may have several copies, and hashes that differ from build to build.
            names[number] = re.sub(r"(::h[0-9a-f]{16})?(\.llvm\.\d+)?('\d+)?$", "", given)
        return names[number]

    function = callee = None
    is_callees = False
    for line in Path(path).read_text().splitlines():
        if line.startswith("fn="):
            function = name(line[3:])
        elif line.startswith("cfn="):
            callee = name(line[4:])
        elif line.startswith("calls="):
            calls[callee] += int(line[6:].split()[0]) / requests
            is_callees = True
        elif function and re.match(r"[*+-]?\d* \d+$", line):
            if not is_callees:
                costs[function] += int(line.split()[1]) / requests
            is_callees = False
    return costs, calls


main()
