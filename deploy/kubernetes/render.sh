#!/usr/bin/env bash
# Writes what `kubectl kustomize` makes of the overlays and of the sidecar into rendered/, for those who
# apply files and have no kustomize.
#
#   bash deploy/kubernetes/render.sh            # writes
#   bash deploy/kubernetes/render.sh --check    # changes nothing; 1 when one is out of date
#
# Needs kubectl, and no cluster.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

check=${1:-}
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
status=0

for source in overlays/dev overlays/prod sidecar; do
    name=$(basename "$source").yaml
    {
        printf '# Made of deploy/kubernetes/%s by deploy/kubernetes/render.sh: change that, not this.\n' "$source"
        kubectl kustomize "$source"
    } >"$made/$name"
    if [ "$check" != --check ]; then
        mkdir -p rendered
        mv "$made/$name" "rendered/$name"
    elif ! diff -u "rendered/$name" "$made/$name"; then
        printf 'rendered/%s is not what %s gives: run deploy/kubernetes/render.sh\n' "$name" "$source" >&2
        status=1
    fi
done
exit $status
