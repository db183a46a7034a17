"""The names of a cluster, as CoreDNS gives them, from BIND.

Each change is one transaction of `nsupdate`: nobody sees a part of it.
"""

import base64
import os
import secrets
import signal
import subprocess
import time

from checks import expect, until
from commands import run

ZONE = "cluster.local"
# What CoreDNS gives.
TTL = 5


class Zone:
    def __init__(self, address, folder):
        self.address, self.folder = address, os.path.join(folder, "named")
        self.process = None
        self.is_silent = False
        self.key = os.path.join(self.folder, "update.key")
        os.makedirs(self.folder)
        self.write()
        self.start()

    def write(self):
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        text = {
            "update.key": f'key "update" {{ algorithm hmac-sha256; secret "{secret}"; }};\n',
            "zone.db": (
                f"$TTL {TTL}\n@ SOA ns.dns.{ZONE}. hostmaster.{ZONE}. 1 7200 1800 86400 {TTL}\n"
                f"  NS ns.dns.{ZONE}.\nns.dns A {self.address}\n"
            ),
            "named.conf": f"""
options {{
    directory "{self.folder}";
    listen-on port 53 {{ {self.address}; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    session-keyfile none;
    recursion no;
    dnssec-validation no;
}};
controls {{ }};
include "update.key";
zone "{ZONE}" {{
    type primary;
    file "zone.db";
    update-policy {{ grant update zonesub ANY; }};
}};
""",
        }
        for name, content in text.items():
            with open(os.path.join(self.folder, name), "w", encoding="utf-8") as file:
                file.write(content)

    def start(self):
        # It ends with us, however that is.
        named = ["named", "-g", "-4", "-n", "1", "-c", os.path.join(self.folder, "named.conf")]
        command = ["setpriv", "--pdeathsig", "KILL", *named]
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until("named answers", self.answers, 20)

    def answers(self):
        expect(self.process.poll() is None, f"named has ended, see {self.folder}/log")
        return self.ask(f"ns.dns.{ZONE}", "A") == [self.address]

    def ask(self, name, kind):
        said = run("dig", "+short", "+time=1", "+tries=1", f"@{self.address}", name, kind, check=False)
        return [line.rstrip(".") for line in said.splitlines() if not line.startswith(";")]

    def replace(self, records):
        """`records`: {(name, type): [data]}; each of these is replaced as a whole, an empty one is deleted."""
        lines = [f"server {self.address}", f"zone {ZONE}"]
        for (name, kind), data in records.items():
            lines.append(f"update delete {name}. {kind}")
            lines += [f"update add {name}. {TTL} {kind} {entry}" for entry in data]
        run("nsupdate", "-k", self.key, stdin="\n".join([*lines, "send", ""]), patience=20)
        return time.time()

    def silence(self):
        """From now on nothing is answered, nor refused."""
        self.is_silent = True
        self.process.send_signal(signal.SIGSTOP)

    def speak(self):
        self.process.send_signal(signal.SIGCONT)
        self.is_silent = False

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
