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
limit=240s
# Of each container's log, in lines, of which those about single requests are left out.
log_tail=5000

read -r -a compose <<<"${COMPOSE:-docker-compose}"
name=evenkeel-story-$$
folder=$(mktemp -d)
# What docker-compose.yml reads.
export COMPOSE_PROJECT_NAME=$name
export COMPOSE_FILE=docker-compose.yml:tests/scripts/compose/ledger.yml
export EVENKEEL_IMAGE=$name:test EVENKEEL_PLAIN_IMAGE=$name-plain:test
export EVENKEEL_CERTS=$folder/certs
export EVENKEEL_NET=${EVENKEEL_NET:-172.30.54}
export PORT=${PORT:-18443}
export EVENKEEL_PORT=127.0.0.1:$PORT
# Nobody is root in a container, whoever calls this.
EVENKEEL_UID=$(id -u) EVENKEEL_GID=$(id -g)
[ "$EVENKEEL_UID" -ne 0 ] || EVENKEEL_UID=65532 EVENKEEL_GID=65532
export EVENKEEL_UID EVENKEEL_GID

step() { printf '\n--- %s\n' "$*"; }

fail() {
    printf 'BROKEN: %s\n' "$*"
    exit 1
}

clean() {
    local status=$?
    trap - EXIT
    set +e
    if [ $status -ne 0 ]; then
        step "what the containers said"
        "${compose[@]}" --profile plain ps
        "${compose[@]}" --profile plain logs --no-color --timestamps --tail=$log_tail 2>&1 |
            grep -v -e '"client":' -e '"message":"sample: '
    fi
    step "clean up"
    "${compose[@]}" --profile plain down --volumes --remove-orphans --timeout 2 >/dev/null 2>&1
    docker image ls --filter "reference=$name*" --format '{{.Repository}}:{{.Tag}}' |
        xargs -r docker image rm --force >/dev/null 2>&1
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
        docker image ls -q --filter "reference=$name*"
    )
    [ -z "$left" ] || { printf 'left behind: %s\n' "$left"; return 1; }
}
trap clean EXIT
trap 'exit 130' INT TERM

step "static binary"
PROFILE=${PROFILE:-release} bash deploy/static.sh

step "images"
"${compose[@]}" --profile plain build --quiet
docker image ls --filter "reference=$name*" --format '{{.Repository}} {{.Size}}'

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
timeout --kill-after=5s $limit python3 -B tests/scripts/compose/story.py "$EVENKEEL_CERTS/ca.pem"
