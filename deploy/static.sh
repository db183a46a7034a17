#!/usr/bin/env bash
# Builds Evenkeel as one static binary and puts it where the Dockerfile takes it from; the small
# server of plain.rs, which docker-compose.yml uses as a stranger's image, beside it.
#
#   bash deploy/static.sh                 # what ships: slow to build, small, fast
#   PROFILE=release bash deploy/static.sh # minutes less, a little larger
#   PROFILE=dev bash deploy/static.sh     # to try something out
#
# Needs Rust and a C compiler, as every build does; no musl: glibc is linked in. That is safe here
# because Evenkeel resolves names itself and never asks NSS, which glibc would load at run time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

profile=${PROFILE:-dist}
# Without an explicit target, the flag would reach build scripts and procedural macros too, and
# those cannot be static.
target=$(rustc -vV | sed -n 's/^host: //p')
folder=$profile
[ "$profile" = dev ] && folder=debug
built=${CARGO_TARGET_DIR:-target}/$target/$folder/evenkeel
out=deploy/bin

say() { printf '%s\n' "$*" >&2; }

RUSTFLAGS="-C target-feature=+crt-static -C strip=debuginfo" \
    cargo build --locked --profile "$profile" --target "$target" --bin evenkeel
# A COPY --chown of an empty folder is how an image without a shell gets a folder of its user's.
mkdir -p "$out/empty"
rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols --target "$target" \
    -o "$out/plain" deploy/plain.rs

# Nothing in the image could load a library: neither may a loader be named nor a library.
for program in "$built" "$out/plain"; do
    if readelf --wide --program-headers --dynamic "$program" | grep -E 'INTERP|NEEDED' >&2; then
        say "$program is not static"
        exit 1
    fi
done

# Renamed into place: an image that is being built gets the old binary or the new one.
install -m 0755 "$built" "$out/evenkeel.new"
mv "$out/evenkeel.new" "$out/evenkeel"
say "$out/evenkeel: static, $(stat -c %s "$out/evenkeel") bytes, profile $profile, $("$out/evenkeel" version | head -n 1)"
