"""How long the image takes to its first request."""

import http.client
import os
import statistics
import time

from checks import say, seconds, until
from commands import run, stamp


def start_up(node, folder):
    """How long it takes from `docker run` to the first request served; and from the start of the process."""
    say("start-up of the image")
    settings = f"""
[[listener]]
address = ":8080"
protocol = "http"
[[service]]
name = "web"
discover = {{ static = ["%s:8080"] }}
[[route]]
service = "web"
"""
    image = node.image("evenkeel")
    size = int(run("docker", "image", "inspect", "--format={{.Size}}", image))
    labels = [f"--label=evenkeel-pod-story={node.prefix}", f"--network={node.network}"]
    backend = run("docker", "run", "-d", *labels, image, "backend", "--listen=0.0.0.0:8080").strip()
    address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    path = os.path.join(folder, "start-up.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(settings % run("docker", "inspect", f"--format={address}", backend).strip())
    whole, own = [], []
    for _ in range(5):
        begun = time.time()
        mount = f"--volume={path}:/etc/evenkeel/evenkeel.toml:ro"
        balancer = run("docker", "run", "-d", "--read-only", "--tmpfs=/tmp", *labels, mount, image).strip()
        where = run("docker", "inspect", f"--format={address} {{{{.State.StartedAt}}}}", balancer).split()

        def served(host=where[0]):
            connection = http.client.HTTPConnection(host, 8080, timeout=5)
            try:
                connection.request("GET", "/")
                return connection.getresponse().status == 200
            except OSError:
                return False
            finally:
                connection.close()

        first = until("a request is served", served, 20, 0.002) and time.time()
        whole.append(first - begun)
        own.append(first - stamp(where[1]))
        run("docker", "rm", "-f", balancer)
    run("docker", "rm", "-f", backend)
    say(f"  image: {size / 1e6:.1f} MB")
    say(f"  from `docker run` to the first request served: {statistics.median(whole):.2f} s (median of {seconds(whole)})")
    say(f"  from the start of its process: {statistics.median(own):.2f} s (median of {seconds(own)})")
