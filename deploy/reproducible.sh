#!/usr/bin/env bash
# Does what is committed give the same binary twice? Builds it in two folders, with two target folders
# and two homes of cargo, and compares.
#
#   bash deploy/reproducible.sh               # two builds of what ships: an hour on two cores
#   PROFILE=dev bash deploy/reproducible.sh   # the same question, with less of the compiler in it
#
# The compilers and glibc are the same both times: another Rust, GCC or glibc may give other bytes. Packages
# are taken from this user's home of cargo, so nothing is fetched for the second build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
home=${CARGO_HOME:-$HOME/.cargo}
cargo fetch --locked --quiet

# Two lengths of path, and a space: neither may show.
for place in first "the second one"; do
    mkdir -p "$work/$place/source" "$work/$place/home/registry"
    git archive HEAD | tar -x -C "$work/$place/source"
    # The archives of the packages, from which cargo unpacks them into this home.
    for part in index cache; do
        [ ! -d "$home/registry/$part" ] || cp -r "$home/registry/$part" "$work/$place/home/registry/"
    done
    for file in config.toml config; do
        [ ! -f "$home/$file" ] || cp "$home/$file" "$work/$place/home/"
    done
    say "=== $place"
    CARGO_HOME="$work/$place/home" CARGO_TARGET_DIR="$work/$place/target" CARGO_NET_OFFLINE=true \
        bash "$work/$place/source/deploy/static.sh"
    # The folder of a build is large; the next one needs the room.
    rm -rf "$work/$place/target"
done

cd "$work"
sha256sum -- */source/deploy/bin/evenkeel
if ! cmp -- "first/source/deploy/bin/evenkeel" "the second one/source/deploy/bin/evenkeel"; then
    say "not reproducible: the two builds differ"
    exit 1
fi
say "reproducible: both builds are the same"
