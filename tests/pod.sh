#!/usr/bin/env bash
# The manifests of deploy/kubernetes/rendered under traffic: their pods in real containers, by stand-ins
# for those who run them in a cluster. What happens is in scripts/pod/story.py.
#
#   bash tests/pod.sh                # builds the static binary first (PROFILE=release)
#
# The containers of a pod share a network, probes come from outside and hooks run inside, names are those
# of CoreDNS (from BIND), and clients come through rules like kube-proxy's. It stands for no cluster: who
# may talk to whom (NetworkPolicy), where pods go and what a cloud's load balancer does is not tried.
#
# Everything it makes (binary apart) has a name of its own and is removed in the end, however it ends. On
# failure the logs of all containers are printed first. As root, for the clients' network. Needs an engine,
# BIND, curl, iptables, openssl, and a Python (EVENKEEL_PYTHON, or python3) with PyYAML, hpack, hyperframe
# and websockets. Nothing is pulled.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# For the story, everything in it bounded by itself; this is for what hangs all the same.
limit=600s
# Of each container's log, in lines, of which those about single requests are left out.
log_tail=3000

folder=$(mktemp -d)
# Nobody else's: pids are given out again, and twice where containers share an engine.
suffix=${folder##*.}
name=evenkeel-pod-${suffix,,}
label=evenkeel-pod-story=$name
image=$name:test
export PATH=$PATH:/usr/sbin:/sbin
# What this story shares with others.
export PYTHONPATH=$PWD/tests/scripts/stories

step() { printf '\n--- %s\n' "$*"; }

logs() {
    local file id
    for file in "$folder"/logs/*.log "$folder"/named/log; do
        [ -f "$file" ] || continue
        step "${file##*/} (has ended)"
        grep -v -e '"client":' -e '"message":"sample: ' -e ' sample: ' "$file" | tail -n $log_tail
    done
    for id in $(docker ps -aq --filter "label=$label"); do
        step "$(docker inspect --format '{{.Name}} {{.State.Status}} {{.State.ExitCode}}' "$id")"
        docker logs --timestamps --tail $log_tail "$id" 2>&1 |
            grep -v -e '"client":' -e '"message":"sample: ' -e ' sample: '
    done
}

clean() {
    local status=$?
    trap - EXIT
    # Whoever interrupts this leaves containers behind.
    trap '' INT TERM
    set +e
    [ $status -eq 0 ] || logs
    step "clean up"
    docker ps -aq --filter "label=$label" | xargs -r docker rm -fv >/dev/null 2>&1
    docker network rm "$name" >/dev/null 2>&1
    docker image rm --force "$image" >/dev/null 2>&1
    rm -rf "$folder"
    left_behind || status=1
    exit $status
}

# Names what is still there.
left_behind() {
    local left
    left=$(
        docker ps -aq --filter "label=$label"
        docker network ls -q --filter "name=^$name\$"
        docker image ls -q "$image"
    )
    [ -z "$left" ] || { printf 'left behind: %s\n' "$left"; return 1; }
}

# Makes a network of three numbers that the engine takes, and prints its first address, which is this machine's.
make_network() {
    local try net
    for try in {1..20}; do
        net=172.30.$((RANDOM % 200 + 54))
        if docker network create --subnet "$net.0/24" --gateway "$net.1" --label "$label" "$name" >/dev/null 2>&1; then
            printf '%s' "$net.1"
            return
        fi
    done
    printf '%s networks below 172.30 are taken\n' "$try" >&2
    return 1
}
trap clean EXIT
trap 'exit 130' INT TERM

# Two in one checkout would make the same files in deploy/bin: until the image is made, one waits.
exec {turn}<tests/compose.sh
flock "$turn"

step "static binary"
PROFILE=${PROFILE:-release} bash deploy/static.sh

step "image"
docker build --quiet --tag "$image" deploy
docker image ls "$image" --format '{{.Size}}'
exec {turn}<&-

gateway=$(make_network)

step "the story"
# In the foreground: a signal to this script's process group, Ctrl-C for one, reaches the story as
# well. In a group of its own it would go on, and the trap would wait for it.
timeout --foreground --kill-after=30s $limit "${EVENKEEL_PYTHON:-python3}" -B tests/scripts/pod/story.py \
    --name="$name" --image="$image" --gateway="$gateway" --folder="$folder"
