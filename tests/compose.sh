#!/usr/bin/env bash
# docker-compose.yml under traffic, with real containers: what happens is in scripts/compose/story.py.
#
#   bash tests/compose.sh                       # builds the static binary first (PROFILE=release)
#   COMPOSE="docker compose" bash tests/compose.sh
#
# Everything it makes (binary apart) has a name of its own and is removed in the end, however it
# ends. On failure the logs of all containers are printed first. Needs an engine, docker-compose,
# python3 and no network: nothing is pulled.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# For the story, everything in it bounded by itself; this is for what hangs all the same.
limit=600s
# Of each container's log, in lines, of which those about single requests are left out.
log_tail=5000

read -r -a compose <<<"${COMPOSE:-docker-compose}"
folder=$(mktemp -d)
# Nobody else's: pids are given out again, and twice where containers share an engine.
suffix=${folder##*.}
name=evenkeel-story-${suffix,,}
# What docker-compose.yml reads.
export COMPOSE_PROJECT_NAME=$name
export COMPOSE_FILE=docker-compose.yml:tests/scripts/compose/ledger.yml
export EVENKEEL_IMAGE=$name:test EVENKEEL_PLAIN_IMAGE=$name-plain:test
export EVENKEEL_CERTS=$folder/certs
images=("$EVENKEEL_IMAGE" "$EVENKEEL_PLAIN_IMAGE" "$name-own:test")
PORT=${PORT:-$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')}
export PORT EVENKEEL_PORT=127.0.0.1:$PORT
# Nobody is root in a container, whoever calls this.
EVENKEEL_UID=$(id -u) EVENKEEL_GID=$(id -g)
[ "$EVENKEEL_UID" -ne 0 ] || EVENKEEL_UID=65532 EVENKEEL_GID=65532
export EVENKEEL_UID EVENKEEL_GID
# What this story shares with others.
export PYTHONPATH=$PWD/tests/scripts/stories

step() { printf '\n--- %s\n' "$*"; }

fail() {
    printf 'BROKEN: %s\n' "$*"
    exit 1
}

clean() {
    local status=$?
    trap - EXIT
    # Whoever interrupts this leaves containers behind.
    trap '' INT TERM
    set +e
    if [ $status -ne 0 ]; then
        step "what the containers said"
        "${compose[@]}" --profile plain ps
        "${compose[@]}" --profile plain logs --no-color --timestamps --tail=$log_tail 2>&1 |
            grep -v -e '"client":' -e '"message":"sample: '
    fi
    step "clean up"
    # `down` knows only what docker-compose has started itself, and a container keeps its network.
    docker ps -aq --filter "label=com.docker.compose.project=$name" | xargs -r docker rm -fv >/dev/null 2>&1
    "${compose[@]}" --profile plain down --volumes --remove-orphans --timeout 2 >/dev/null 2>&1
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

# Prints a network's first three numbers that the engine takes: two of these may run at a time.
free_network() {
    local try net
    for try in {1..20}; do
        net=172.30.$((RANDOM % 200 + 54))
        if docker network create --subnet "$net.0/24" "$name" >/dev/null 2>&1; then
            docker network rm "$name" >/dev/null
            printf '%s' "$net"
            return
        fi
    done
    printf '%s networks below 172.30 are taken; another one: EVENKEEL_NET=10.99.0\n' "$try" >&2
    return 1
}
trap clean EXIT
trap 'exit 130' INT TERM

# Two in one checkout would make the same files in deploy/bin: until the images are made, one waits.
exec {turn}<tests/compose.sh
flock "$turn"

step "static binary"
PROFILE=${PROFILE:-release} bash deploy/static.sh

step "images"
"${compose[@]}" --profile plain build --quiet
docker image ls "${images[@]/#/--filter=reference=}" --format '{{.Repository}} {{.Size}}'
exec {turn}<&-

step "network"
EVENKEEL_NET=${EVENKEEL_NET:-$(free_network)}
export EVENKEEL_NET
# By itself, so that a network that cannot be had is not taken for a certificate that cannot.
"${compose[@]}" up --no-start certs

step "a certificate folder that the container may not write to"
mkdir "$EVENKEEL_CERTS"
chmod 0555 "$EVENKEEL_CERTS"
if said=$("${compose[@]}" run --rm --no-deps certs 2>&1); then
    fail "no certificate could be written, and it says: $said"
fi
printf '%s\n' "$said"
grep -q "chown" <<<"$said" || fail "it does not say what to do"
chmod 0755 "$EVENKEEL_CERTS"
[ "$(id -u)" -ne 0 ] || chown "$EVENKEEL_UID:$EVENKEEL_GID" "$EVENKEEL_CERTS"

step "the story"
# In the foreground: a signal to this script's process group, Ctrl-C for one, reaches the story as
# well. In a group of its own it would go on, and the trap would wait for it.
timeout --foreground --kill-after=30s $limit python3 -B tests/scripts/compose/story.py "$EVENKEEL_CERTS/ca.pem"
