#!/bin/sh
# The start of BIND's container: makes the key and the zone, unless they are there, and becomes named.
# Needs no more of the image than a shell and the plainest programs.
set -eu
umask 077

key=/keys/web.key
if [ ! -s "$key" ]; then
    secret=$(head -c 32 /dev/urandom | base64)
    printf 'key "web" {\n\talgorithm hmac-sha256;\n\tsecret "%s";\n};\n' "$secret" >"$key.new"
    # Whole or not at all: replicas read it as soon as it is there.
    mv "$key.new" "$key"
fi

zone=/state/svc.test.zone
[ -e "$zone" ] || cp /etc/bind/svc.test.zone "$zone"

exec named -g -c /etc/bind/named.conf
