#!/usr/bin/env python3
"""CPU time per request of Evenkeel beside HAProxy, on one core each, in interleaved rounds.

Needs haproxy, nginx, wrk, openssl and taskset (Debian: haproxy nginx-light wrk openssl util-linux)
and a build of the `dist` profile: cargo build --profile dist

The proxy is pinned to core 0 with one worker; backend (NGINX) and load generator (wrk) to core 1.
What is compared is the CPU time of the proxy's process per request (user and system, from /proc),
not throughput: the load generator is what saturates first. Every server listens on loopback only
and is ended by this script.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

PORTS = {"backend": 20080, "evenkeel": (20081, 20443), "haproxy": (20082, 20444)}
PROXY_CORE, LOAD_CORE = "0", "1"


def main():
    args = arguments()
    missing = [t for t in ("haproxy", "nginx", "wrk", "openssl", "taskset") if not find(t)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
        started = []
        try:
            figures = compare(args, folder, started)
        finally:
            for process in started:
                process.send_signal(signal.SIGKILL)
                process.wait()
    report(args, figures)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default="target/dist/evenkeel", help="Evenkeel (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each pair (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="length of a round (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=64, help="kept-alive client connections (default: %(default)s)")
    parser.add_argument("--size", type=int, default=128, help="bytes of a response's body (default: %(default)s)")
    parser.add_argument("--access-log", default="off", choices=["off", "json"], help="Evenkeel's access log, to a file")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser.parse_args()


def find(tool):
    return shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


def compare(args, folder, started):
    certificate(folder)
    backend(args, folder, started)
    pids = {"evenkeel": evenkeel(args, folder, started), "haproxy": haproxy(folder, started)}
    figures = {}
    for scenario, index, scheme in (("plain", 0, "http"), ("tls", 1, "https")):
        rows = {name: [] for name in pids}
        for turn in range(args.rounds + 1):
            order = list(pids) if turn % 2 == 0 else list(reversed(pids))
            for name in order:
                url = f"{scheme}://127.0.0.1:{PORTS[name][index]}/"
                cost = one_round(args, pids[name], url)
                if turn > 0:  # the first one warms up
                    rows[name].append(cost)
        figures[scenario] = rows
    return figures


def one_round(args, pid, url):
    """Microseconds of the process's CPU per request."""
    before = cpu_seconds(pid)
    out = subprocess.run(
        ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{args.connections}", f"-d{args.seconds}s", url],
        capture_output=True, text=True, check=True, timeout=args.seconds + 30,
    ).stdout
    spent = cpu_seconds(pid) - before
    if "Non-2xx" in out or "Socket errors" in out:
        sys.exit(f"{url} did not answer every request:\n{out}")
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    return {"us": spent / requests * 1e6, "requests": requests}


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def certificate(folder):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )
    with open(f"{folder}/both.pem", "w") as both:
        for part in ("cert.pem", "key.pem"):
            with open(f"{folder}/{part}") as file:
                both.write(file.read())


def backend(args, folder, started):
    with open(f"{folder}/nginx.conf", "w") as file:
        file.write(f"""
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  server {{ listen 127.0.0.1:{PORTS['backend']} reuseport; location / {{ return 200 "{'x' * args.size}"; }} }}
}}
""")
    start(started, LOAD_CORE, [find("nginx"), "-p", folder, "-c", f"{folder}/nginx.conf"], PORTS["backend"])


def evenkeel(args, folder, started):
    plain, tls = PORTS["evenkeel"]
    with open(f"{folder}/evenkeel.toml", "w") as file:
        file.write(f"""
workers = 1
[[listener]]
address = "127.0.0.1:{plain}"
protocol = "http"
[[listener]]
address = "127.0.0.1:{tls}"
protocol = "https"
certificates = [{{ cert = "cert.pem", key = "key.pem" }}]
[[service]]
name = "web"
discover = {{ static = ["127.0.0.1:{PORTS['backend']}"] }}
[[route]]
service = "web"
[log]
access = "{args.access_log}"
[probe]
address = "127.0.0.1:20902"
""")
    return start(started, PROXY_CORE, [args.binary, "run", "-c", f"{folder}/evenkeel.toml"], tls, f"{folder}/access.log")


def haproxy(folder, started):
    plain, tls = PORTS["haproxy"]
    with open(f"{folder}/haproxy.cfg", "w") as file:
        file.write(f"""
global
    nbthread 1
    maxconn 8000
defaults
    mode http
    timeout connect 1s
    timeout client 75s
    timeout server 60s
    option forwardfor
    http-reuse safe
frontend in
    bind 127.0.0.1:{plain}
    bind 127.0.0.1:{tls} ssl crt {folder}/both.pem alpn http/1.1
    unique-id-format %{{+X}}o%ci%cp%fi%fp%Ts%rt%pid
    unique-id-header X-Request-Id
    default_backend web
backend web
    server one 127.0.0.1:{PORTS['backend']}
""")
    return start(started, PROXY_CORE, [find("haproxy"), "-db", "-f", f"{folder}/haproxy.cfg"], tls)


def start(started, core, command, port, out=os.devnull):
    with open(out, "wb") as stdout:
        process = subprocess.Popen(["taskset", "-c", core, *command], stdout=stdout, stderr=subprocess.PIPE)
    started.append(process)
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"{command[0]} did not start: {process.stderr.read().decode()}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process.pid
        time.sleep(0.05)
    sys.exit(f"{command[0]} does not listen on {port}")


def report(args, figures):
    if args.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{args.rounds} rounds of {args.seconds} s, {args.connections} connections, {args.size} B, one core for the proxy")
    print(f"{'':8}{'evenkeel':>22}{'haproxy':>22}{'haproxy / evenkeel':>28}")
    for scenario, rows in figures.items():
        ours, theirs = ([r["us"] for r in rows[name]] for name in ("evenkeel", "haproxy"))
        ratios = [t / o for o, t in zip(ours, theirs)]
        print(f"{scenario:8}{spread(ours, ' µs'):>22}{spread(theirs, ' µs'):>22}{spread(ratios, ''):>28}")
    print("median (least – most); a difference under 10 % is not a difference")


def spread(values, unit):
    return f"{statistics.median(values):.2f}{unit} ({min(values):.2f} – {max(values):.2f})"


if __name__ == "__main__":
    main()
