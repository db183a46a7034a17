#!/usr/bin/env bash
# Replaces the replicas of a service one by one, so that a new image or a changed setting costs no
# request: one more is started; when it is healthy, an old one is told to stop and removed.
#
#   bash deploy/roll.sh web
#
# `docker-compose up -d` would stop all of them at the same moment. Run from the folder of
# docker-compose.yml. COMPOSE="docker compose" takes the newer program.
#
# Healthy has to mean that it can be found: `evenkeel backend` is not before DNS has its record. With a
# health check that does not know (of a command of your own under `evenkeel register`, say), new
# replicas that cannot register replace those that have.
set -euo pipefail

service=${1:?usage: roll.sh SERVICE}
read -r -a compose <<<"${COMPOSE:-docker-compose}"
# A new replica that is not healthy by then ends the roll, with the old ones still serving.
patience=60
# More than the longest stop_grace_period: 1.29 leaves it out of what it tells Docker.
grace=60

# True when the service has so many containers, all of them healthy.
all_healthy() {
    local wanted=$1 ids id
    # Where nobody says what there is, nobody is healthy.
    ids=$("${compose[@]}" ps -q "$service") || return 1
    [ "$(wc -w <<<"$ids")" -eq "$wanted" ] || return 1
    for id in $ids; do
        [ "$(docker inspect --format '{{.State.Health.Status}}' "$id")" = healthy ] || return 1
    done
}

ids=$("${compose[@]}" ps -q "$service")
if [ -z "$ids" ]; then
    printf 'there is no replica of %s\n' "$service" >&2
    exit 1
fi
mapfile -t old <<<"$ids"
more=$((${#old[@]} + 1))

for id in "${old[@]}"; do
    "${compose[@]}" up -d --no-deps --no-recreate --scale "$service=$more" "$service"
    deadline=$((SECONDS + patience))
    until all_healthy "$more"; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            printf 'no healthy replica of %s within %d s; the old ones go on\n' "$service" "$patience" >&2
            exit 1
        fi
        sleep 0.2
    done
    docker stop -t "$grace" "$id" >/dev/null
    docker rm "$id" >/dev/null
    printf '%.12s is replaced\n' "$id"
done
