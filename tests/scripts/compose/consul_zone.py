"""A zone that answers as Consul does for the services of an agent's configuration, all of them passing.

usage: consul_zone.py CONSUL_HCL NETWORK, whose first three numbers take the place of those in the file
"""

import ipaddress
import re
import sys

file, network = sys.argv[1:]
with open(file, encoding="utf-8") as source:
    text = source.read()

print("$ORIGIN consul.\n$TTL 1\n@ IN SOA ns postmaster (1 3600 600 86400 0)\n@ IN NS ns\nns IN A 127.0.0.1")
for block in text.split("\nservices {")[1:]:

    def value(pattern):
        return re.search(pattern, block).group(1)

    name, port, passing = value(r'\bname += "(\w+)"'), value(r"\bport += (\d+)"), value(r"\bpassing = (\d+)")
    last = value(r'\baddress += "[\d.]+\.(\d+)"')
    address = ipaddress.ip_address(f"{network}.{last}")
    # Its name is the address in hexadecimal, below the data centre's `addr`; priority is always 1.
    target = f"{int(address):08x}.addr.dc1"
    print(f"_{name}._tcp.service IN SRV 1 {passing} {port} {target}\n{target} IN A {address}")
