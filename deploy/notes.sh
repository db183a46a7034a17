#!/usr/bin/env bash
# What the changelog says of a version: the text of its release.
#
#   bash deploy/notes.sh v1.2.3
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

notes=$(awk -v heading="## [${1#v}]" 'index($0, "## [") == 1 { inside = index($0, heading) == 1; next } inside' docs/CHANGELOG.md)
if [ -z "${notes//[[:space:]]/}" ]; then
    printf 'docs/CHANGELOG.md says nothing of %s\n' "$1" >&2
    exit 1
fi
printf '%s\n' "$notes"
