#!/usr/bin/env bash
# Builds the image of each architecture around the binary that dist/evenkeel-ARCH holds, and pushes them as
# one. Says what it has pushed, as `name=` and `digest=`, on standard output.
#
#   bash deploy/push.sh ghcr.io/OWNER/evenkeel v1.2.3
#   ARCHS=amd64 OUTPUT=type=oci,dest=image.tar bash deploy/push.sh evenkeel v1.2.3   # pushes nothing
#
# Nothing is run in the image, so none of it is emulated. Needs Docker with buildx, and a `docker login` before.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=${1,,} # names of images have no capitals
tag=$2
version=${tag#v}
read -r -a archs <<<"${ARCHS:-amd64 arm64}"
created=$(date --utc --date="@$(git log -1 --format=%ct)" +%Y-%m-%dT%H:%M:%SZ)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Dockerfile takes bin/, so each architecture has a folder of its own to be built from.
images=()
for arch in "${archs[@]}"; do
    mkdir -p "$work/$arch/bin/empty"
    cp deploy/Dockerfile "$work/$arch/"
    install -m 0755 "dist/evenkeel-$arch" "$work/$arch/bin/evenkeel"
    docker buildx build --platform "linux/$arch" --provenance=false \
        --build-arg VERSION="$version" --build-arg REVISION="$(git rev-parse HEAD)" \
        --build-arg CREATED="$created" --build-arg SOURCE="${SOURCE:-unknown}" \
        --output "${OUTPUT:-type=image,push=true}" --tag "$name:$version-$arch" "$work/$arch" >&2
    images+=("$name:$version-$arch")
done
[ -z "${OUTPUT:-}" ] || exit 0

docker buildx imagetools create --tag "$name:$version" --tag "$name:latest" "${images[@]}" >&2
digest=$(docker buildx imagetools inspect --format '{{json .Manifest}}' "$name:$version" | sed -n 's/.*"digest":"\(sha256:[0-9a-f]*\)".*/\1/p' | head -n 1)
printf 'name=%s\ndigest=%s\n' "$name" "$digest"
