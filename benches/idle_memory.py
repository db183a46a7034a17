#!/usr/bin/env python3
"""What an idle client connection costs in memory, plain and over TLS 1.3.

Starts Evenkeel and a backend, opens many connections, lets each make one request, waits, and reads
how much the proportional set size (Pss, /proc/PID/smaps_rollup) has grown per connection. With
`--at-once` all requests are under way at the same time, so that what is measured is what stays
after a burst. Needs openssl (the program) and descriptors: ulimit -n. Loopback only.
"""

import argparse
import asyncio
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n"
BODY = b"x" * 128
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


def main():
    args = arguments()
    if args.backend:
        return asyncio.run(answer(args))
    with tempfile.TemporaryDirectory(prefix="idle-memory-") as folder:
        certificate(folder)
        for scheme in args.schemes.split(","):
            # A process of its own for each figure: memory that a first run left would be used again.
            print(f"{scheme}: {measure(args, scheme, folder):.2f} KiB per idle connection", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/release/evenkeel", help="Evenkeel (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=10000, help="(default: %(default)s)")
    parser.add_argument("--wait", type=float, default=6, help="idle seconds before it is measured (default: %(default)s)")
    parser.add_argument("--at-once", action="store_true", help="all requests under way at the same time")
    parser.add_argument("--schemes", default="plain,tls", help="(default: %(default)s)")
    parser.add_argument("--port", type=int, default=20180, help="first of four (default: %(default)s)")
    parser.add_argument("--backend", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(args, scheme, folder):
    started = []
    try:
        start(started, [sys.executable, __file__, "--backend", *sys.argv[1:]], args.port)
        proxy = start(started, [args.binary, "run", "-c", configuration(args, folder)], args.port + 2)
        warm_up(args, scheme)
        before = pss(proxy.pid)
        clients = connect(args, scheme)
        time.sleep(args.wait)
        grown = pss(proxy.pid) - before
        gone = sum(closed(client) for client in clients)
        if gone:
            sys.exit(f"{gone} connections were closed meanwhile")
        return grown / len(clients)
    finally:
        for process in started:
            process.kill()
            process.wait()


def start(started, command, port):
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    started.append(process)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return process
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                sys.exit(f"does not listen: {command}")
            time.sleep(0.05)


def pss(pid):
    """In KiB."""
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))


def warm_up(args, scheme):
    for client in [one(args, scheme) for _ in range(20)]:
        ask(client)
        client.close()
    time.sleep(1.5)


def one(args, scheme):
    port = args.port + 1 + (scheme == "tls")
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    if scheme == "tls":
        client = CONTEXT.wrap_socket(client, server_hostname="localhost")
    return client


def connect(args, scheme):
    clients = []
    for _ in range(args.connections):
        client = one(args, scheme)
        if not args.at_once:
            ask(client)
        clients.append(client)
    if args.at_once:
        for client in clients:
            client.sendall(REQUEST)
        for client in clients:
            read(client)
    return clients


def ask(client):
    client.sendall(REQUEST)
    read(client)


def read(client):
    response = b""
    while not response.endswith(BODY):
        more = client.recv(65536)
        if not more:
            sys.exit(f"no response, but {response!r}")
        response += more
    if not response.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"not the expected response: {response!r}")


def closed(client):
    """Has the other side ended it? Not through TLS, which would wait for the rest of a record."""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ)
        return bool(selector.select(0))


def configuration(args, folder):
    path = f"{folder}/evenkeel.toml"
    with open(path, "w") as file:
        file.write(f"""
workers = 1
[limits]
max_connections = 60000
[log]
access = "off"
[defaults]
keep_alive = "10m"
header_timeout = "10m"
[[listener]]
address = "127.0.0.1:{args.port + 1}"
protocol = "http"
[[listener]]
address = "127.0.0.1:{args.port + 2}"
protocol = "https"
certificates = [{{ cert = "cert.pem", key = "key.pem" }}]
[[service]]
name = "web"
discover = {{ static = ["127.0.0.1:{args.port}"] }}
[[route]]
service = "web"
[probe]
address = "127.0.0.1:{args.port + 3}"
""")
    return path


async def answer(args):
    """The backend. With `--at-once`, nobody is answered before the last request has come."""
    waiting, everybody = 0, asyncio.Event()
    if not args.at_once:
        everybody.set()

    async def serve(reader, writer):
        nonlocal waiting
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                waiting += 1
                # The connections of the warm-up are not held.
                if waiting <= 20 or waiting >= args.connections + 20:
                    if waiting > 20:
                        everybody.set()
                else:
                    await everybody.wait()
                writer.write(RESPONSE)
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", args.port, backlog=4096)
    await server.serve_forever()


def certificate(folder):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )


CONTEXT = ssl.create_default_context()
CONTEXT.check_hostname = False
CONTEXT.verify_mode = ssl.CERT_NONE

if __name__ == "__main__":
    main()
