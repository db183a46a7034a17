#!/usr/bin/env bash
# Makes what a release has for the architecture of this machine, in dist/:
#
#   evenkeel-VERSION-ARCH-linux.tar.gz   binary, manual pages, completions, units, an example, licences
#   evenkeel_VERSION-1_ARCH.deb          the same for Debian and Ubuntu
#   evenkeel-VERSION-ARCH-linux.cdx.json what is compiled into it (CycloneDX)
#   evenkeel-VERSION-ARCH-linux.sha256   checksums of these
#
#   bash deploy/release.sh                  # what ships
#   PROFILE=release bash deploy/release.sh  # minutes less
#   deploy/release.sh --staged              # package the binary that deploy/bin holds already
#
# Needs what static.sh needs, cargo-deb and cargo-cyclonedx:
#
#   cargo install --locked cargo-deb@3.8.0 cargo-cyclonedx@0.5.9
#
# TAG=v1.2.3 makes sure that the release is of this version, and that the changelog tells of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
if [ -n "${TAG:-}" ]; then
    if [ "$TAG" != "v$version" ]; then
        say "the tag is $TAG, Cargo.toml says $version"
        exit 1
    fi
    if ! grep --quiet "^## \[$version\] - 2" docs/CHANGELOG.md; then
        say "docs/CHANGELOG.md has no section with a date for $version"
        exit 1
    fi
fi

[ "${1:-}" = --staged ] || bash deploy/static.sh

# What is packed has the time of its commit, not that of the build: the archives are reproducible too.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
name=evenkeel-$version-$(uname -m)-linux
stage=dist/stage
rm -rf dist
mkdir -p "$stage/man" "$stage/completions" "$stage/doc"
install -m 0755 deploy/bin/evenkeel "$stage/evenkeel"
"$stage/evenkeel" man --out "$stage/man"
"$stage/evenkeel" completions bash >"$stage/completions/evenkeel"
"$stage/evenkeel" completions zsh >"$stage/completions/_evenkeel"
"$stage/evenkeel" completions fish >"$stage/completions/evenkeel.fish"
"$stage/evenkeel" config init "$stage/evenkeel.toml" >/dev/null
cp LICENSE-APACHE LICENSE-MIT README.md docs/CHANGELOG.md "$stage/doc/"
# Debian's form of it says no more than where the real one is.
cat >"$stage/changelog" <<EOF
evenkeel ($version-1) stable; urgency=medium

  * What changed: /usr/share/doc/evenkeel/CHANGELOG.md.gz

 -- The Evenkeel authors <evenkeel@localhost>  $(LC_ALL=C date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
EOF
gzip --no-name -9 --stdout docs/CHANGELOG.md >"$stage/CHANGELOG.md.gz"
cp -r deploy/systemd "$stage/systemd"

tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --transform "s,^\.,$name," -C "$stage" -cf - . | gzip --no-name -9 >"dist/$name.tar.gz"

cargo deb --no-build --no-strip --output dist/

target=$(rustc -vV | sed -n 's/^host: //p')
cargo cyclonedx --quiet --format json --spec-version 1.5 --target "$target" --override-filename sbom
mv sbom.json "dist/$name.cdx.json"

rm -rf "$stage"
(cd dist && sha256sum -- *.tar.gz *.deb *.json >"$name.sha256")
ls -l dist >&2
