#!/usr/bin/env bash
# The recipes below deploy/compose/ in real containers, under traffic: what happens is in
# scripts/compose/recipes.py.
#
#   bash tests/recipes.sh                # all of them; builds the static binary first (PROFILE=release)
#   bash tests/recipes.sh bind plain
#
# BIND is that of this machine, in an image of its own. CoreDNS and Consul cannot be had without a
# registry: BIND stands in for them, with what they would answer, so that everything but they
# themselves is tried.
#
# What it makes (binary apart) has a name of its own and is removed in the end, however it ends. Needs
# an engine, docker-compose, python3, BIND and its nsupdate.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PATH:/usr/sbin:/sbin

# For one recipe, everything in it bounded by itself; this is for what hangs all the same.
limit=180s
log_tail=2000
recipes=("$@")
[ $# -gt 0 ] || recipes=(bind plain coredns consul)

read -r -a compose <<<"${COMPOSE:-docker-compose}"
folder=$(mktemp -d)
suffix=${folder##*.}
name=evenkeel-recipe-${suffix,,}
export COMPOSE_PROJECT_NAME=$name
export EVENKEEL_IMAGE=$name:test EVENKEEL_PLAIN_IMAGE=$name-plain:test EVENKEEL_BIND_IMAGE=$name-bind:test
export EVENKEEL_COREDNS_IMAGE=$EVENKEEL_BIND_IMAGE EVENKEEL_CONSUL_IMAGE=$EVENKEEL_BIND_IMAGE
images=("$EVENKEEL_IMAGE" "$EVENKEEL_PLAIN_IMAGE" "$EVENKEEL_BIND_IMAGE")
export EVENKEEL_CERTS=$folder/certs
PORT=${PORT:-$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
export PORT EVENKEEL_PORT=127.0.0.1:$PORT
# Nobody is root in a container, whoever calls this.
EVENKEEL_UID=$(id -u) EVENKEEL_GID=$(id -g)
[ "$EVENKEEL_UID" -ne 0 ] || EVENKEEL_UID=65532 EVENKEEL_GID=65532
export EVENKEEL_UID EVENKEEL_GID
# What this story shares with others.
export PYTHONPATH=$PWD/tests/scripts/stories

step() { printf '\n--- %s\n' "$*"; }

# Takes away what docker-compose made; containers that were started otherwise too.
down() {
    docker ps -aq --filter "label=com.docker.compose.project=$name" | xargs -r docker rm -fv >/dev/null 2>&1
    "${compose[@]}" down --volumes --remove-orphans --timeout 2 >/dev/null 2>&1
}

clean() {
    local status=$?
    trap - EXIT
    # Whoever interrupts this leaves containers behind.
    trap '' INT TERM
    set +e
    if [ $status -ne 0 ] && [ -n "${COMPOSE_FILE:-}" ]; then
        step "what the containers said"
        "${compose[@]}" ps
        "${compose[@]}" logs --no-color --timestamps --tail=$log_tail 2>&1 | grep -v -e '"client":'
    fi
    step "clean up"
    [ -z "${COMPOSE_FILE:-}" ] || down
    docker network rm "$name" >/dev/null 2>&1
    docker image rm --force "${images[@]}" >/dev/null 2>&1
    rm -rf "$folder"
    left_behind || status=1
    exit $status
}

# Names what is still there.
left_behind() {
    local left
    left=$(
        docker ps -aq --filter "label=com.docker.compose.project=$name"
        docker network ls -q --filter "label=com.docker.compose.project=$name"
        docker volume ls -q --filter "label=com.docker.compose.project=$name"
        docker network ls -q --filter "name=^$name\$"
        docker image ls -q "${images[@]/#/--filter=reference=}"
    )
    [ -z "$left" ] || { printf 'left behind: %s\n' "$left"; return 1; }
}

# Prints a network's first three numbers that the engine takes.
free_network() {
    local net
    for _ in {1..20}; do
        net=172.30.$((RANDOM % 200 + 54))
        if docker network create --subnet "$net.0/24" "$name" >/dev/null 2>&1; then
            docker network rm "$name" >/dev/null
            printf '%s' "$net"
            return
        fi
    done
    printf '20 networks below 172.30 are taken; another one: EVENKEEL_NET=10.99.0\n' >&2
    return 1
}

# An image of BIND as this machine has it, which stands in for others too.
standins() {
    local root=$folder/context/root program library
    local from=tests/scripts/compose/standins
    mkdir -p "$root"/{bin,etc}
    for program in named sh head base64 mv cp cat; do
        program=$(command -v "$program")
        cp -L "$program" "$root/bin/"
        # What the loader would load, and the loader.
        ldd "$program" | grep -oE '/[^ ]+' | while read -r library; do
            mkdir -p "$root$(dirname "$library")"
            cp -Ln "$library" "$root$library"
        done
    done
    cp $from/coredns "$root/"
    cp $from/consul "$root/bin/"
    cp $from/*.conf "$root/etc/"
    python3 tests/scripts/compose/consul_zone.py deploy/compose/consul/consul.hcl "$EVENKEEL_NET" >"$root/etc/consul.zone"
    docker build --quiet -f $from/Dockerfile -t "$EVENKEEL_BIND_IMAGE" "$folder/context"
}
trap clean EXIT
trap 'exit 130' INT TERM

# Two in one checkout would make the same files in deploy/bin: until the images are made, one waits.
exec {turn}<tests/compose.sh
flock "$turn"
step "static binary"
PROFILE=${PROFILE:-release} bash deploy/static.sh

step "images"
EVENKEEL_NET=${EVENKEEL_NET:-$(free_network)}
export EVENKEEL_NET
docker build --quiet -t "$EVENKEEL_IMAGE" deploy
docker build --quiet -f deploy/Dockerfile.plain -t "$EVENKEEL_PLAIN_IMAGE" deploy
exec {turn}<&-
standins

mkdir "$EVENKEEL_CERTS"
[ "$(id -u)" -ne 0 ] || chown "$EVENKEEL_UID:$EVENKEEL_GID" "$EVENKEEL_CERTS"
# Where addresses are in files, the network that is free here takes the place of the one they name.
cp -r deploy/compose "$folder/recipes"
find "$folder/recipes/coredns" "$folder/recipes/consul" -type f -exec sed -i "s/172\.30\.53\b/$EVENKEEL_NET/g" {} +

for recipe in "${recipes[@]}"; do
    step "$recipe"
    export COMPOSE_FILE=$folder/recipes/$recipe/docker-compose.yml
    timeout --foreground --kill-after=30s $limit \
        python3 -B tests/scripts/compose/recipes.py "$EVENKEEL_CERTS/ca.pem" "$recipe"
    down || true
done
