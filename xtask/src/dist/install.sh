#!/bin/sh
# Installs greenwave @VERSION@ below ~/.local, or the directory in GREENWAVE_PREFIX.
#
# GREENWAVE_URL is the directory from which the archive is downloaded. The archive must have the
# SHA-256 that this script states.
set -eu

fail() {
  echo "error: $1" >&2
  exit 1
}

download() {
  if command -v curl >/dev/null; then
    curl --fail --silent --show-error --location --output "$2" "$1"
  elif command -v wget >/dev/null; then
    wget --quiet --output-document="$2" "$1"
  else
    fail "cannot download $1: install curl or wget"
  fi
}

checksum() {
  if command -v sha256sum >/dev/null; then
    sha256sum "$1"
  else
    shasum -a 256 "$1"
  fi | cut -d ' ' -f 1
}

main() {
  url=${GREENWAVE_URL:-@URL@}
  [ -n "$url" ] || fail "GREENWAVE_URL is not set: set it to the directory of the archives"
  prefix=${GREENWAVE_PREFIX:-$HOME/.local}
  case "$(uname -sm)" in
    @CASES@
    *) fail "there is no program for $(uname -sm): build it with cargo install greenwave-cli" ;;
  esac
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  download "$url/$archive" "$work/$archive" || fail "cannot download $url/$archive"
  found=$(checksum "$work/$archive")
  [ "$found" = "$sum" ] || fail "$url/$archive has the SHA-256 $found instead of $sum: it was not installed"
  tar -xzf "$work/$archive" -C "$work"
  tree=$work/${archive%.tar.gz}
  mkdir -p "$prefix/bin"
  # A program that runs is not overwritten, and an interrupted copy replaces nothing.
  cp "$tree/bin/greenwave" "$prefix/bin/.greenwave.new"
  mv -f "$prefix/bin/.greenwave.new" "$prefix/bin/greenwave"
  cp -R "$tree/share" "$prefix/"
  echo "installed greenwave @VERSION@ in $prefix/bin"
  case ":$PATH:" in
    *":$prefix/bin:"*) ;;
    *) echo "hint: add $prefix/bin to PATH" ;;
  esac
}

# At the end, so that an interrupted download of this script runs nothing.
main
