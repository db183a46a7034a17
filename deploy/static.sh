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
#
# The same source gives the same bytes, wherever it lies, with the same compilers and the same glibc:
# reproducible.sh builds it twice and compares.
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

# Both compilers leave the names of source files in the program, for messages. They get the same ones
# everywhere. Of two prefixes that match rustc takes the later one, the C compiler too.
mkdir -p "${CARGO_TARGET_DIR:-target}"
home=$(cd "${CARGO_HOME:-$HOME/.cargo}" && pwd)
output=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
sources=$(rustc --print sysroot)/lib/rustlib/src/rust
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
prefixes=("$PWD=/evenkeel" "$output=/evenkeel/target" "$home=/cargo" "$sources=/rustc/$commit")
flags=(-C target-feature=+crt-static -C strip=debuginfo)
c_flags=
for prefix in "${prefixes[@]}"; do
    flags+=("--remap-path-prefix=$prefix")
    c_flags+="$(printf -- '-ffile-prefix-map=%q ' "$prefix")"
done
# Whatever a folder is called: cargo takes flags apart at this character, and C flags as a shell would.
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf '%s' "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
CFLAGS=$c_flags CC_SHELL_ESCAPED_FLAGS=1 cargo build --locked --profile "$profile" --target "$target" --bin evenkeel
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
    # Nor may it say where it was built.
    for place in "$PWD/" "$output/" "$home/"; do
        if grep --quiet --fixed-strings --text -- "$place" "$program"; then
            say "$program names $place:"
            strings "$program" | grep --fixed-strings --max-count 3 -- "$place" >&2
            exit 1
        fi
    done
done

# Renamed into place: an image that is being built gets the old binary or the new one.
install -m 0755 "$built" "$out/evenkeel.new"
mv "$out/evenkeel.new" "$out/evenkeel"
say "$out/evenkeel: static, $(stat -c %s "$out/evenkeel") bytes, profile $profile, $("$out/evenkeel" version | head -n 1)"
