#!/bin/sh
# Installs Batwa @VERSION@ from the master at @MASTER@ and joins this machine to it:
#
#   curl -fsSL @MASTER@/join.sh | sh -s -- TOKEN [flags of `batwa agent join`]
#
# (with `--insecure --pinnedpubkey PIN` where the master vouches for itself)
#
# Root gets /usr/local/bin/batwa, everybody else ~/.local/bin/batwa; BATWA_INSTALL_DIR names another folder.
set -eu

MASTER='@MASTER@'
PLATFORM='@PLATFORM@'
SHA256='@SHA256@'
# The master's public key, where no authority vouches for it.
PIN='@PIN@'

fail() {
    echo "join.sh: $*" >&2
    exit 1
}

# What is fetched must have the checksum above, whichever way it came: this script came from the master itself.
fetch() {
    if command -v curl >/dev/null 2>&1; then
        if [ -n "$PIN" ]; then
            curl -fsSL --insecure --pinnedpubkey "$PIN" -o "$2" "$1"
        else
            curl -fsSL -o "$2" "$1"
        fi
    elif command -v wget >/dev/null 2>&1; then
        if [ -n "$PIN" ]; then
            wget -q --no-check-certificate -O "$2" "$1"
        else
            wget -q -O "$2" "$1"
        fi
    else
        fail "neither curl nor wget is installed: install one of them"
    fi
}

checksum() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum "$1" | cut -d ' ' -f 1
    elif command -v shasum >/dev/null 2>&1; then
        shasum -a 256 "$1" | cut -d ' ' -f 1
    else
        fail "neither sha256sum nor shasum is installed: install one of them"
    fi
}

main() {
    [ $# -ge 1 ] || fail "the join token is missing: run the line as the master printed it, to its end"
    token=$1
    shift
    os=$(uname -s)
    case $os in
    Linux) os=linux ;;
    Darwin) os=macos ;;
    esac
    arch=$(uname -m)
    case $arch in
    amd64) arch=x86_64 ;;
    arm64) arch=aarch64 ;;
    esac
    if [ "$os-$arch" != "$PLATFORM" ]; then
        fail "this machine is $os-$arch, and the master has the program for $PLATFORM alone:
build Batwa @VERSION@ on this machine (cargo install --locked --path crates/batwa), then run
    batwa agent join $MASTER TOKEN"
    fi
    if [ -n "${BATWA_INSTALL_DIR:-}" ]; then
        folder=$BATWA_INSTALL_DIR
    elif [ "$(id -u)" = 0 ]; then
        folder=/usr/local/bin
    else
        folder=$HOME/.local/bin
    fi
    mkdir -p "$folder"
    program=$folder/batwa
    if [ ! -x "$program" ] || [ "$(checksum "$program")" != "$SHA256" ]; then
        # Beside its place, so that the last step is one rename: a running Batwa is not disturbed.
        new=$(mktemp "$folder/.batwa.XXXXXX")
        trap 'rm -f "$new"' EXIT
        fetch "$MASTER/api/v1/download/batwa-$PLATFORM" "$new" || fail "cannot download the program from $MASTER"
        [ "$(checksum "$new")" = "$SHA256" ] || fail "the download is damaged: run the line again"
        chmod 755 "$new"
        mv -f "$new" "$program"
        trap - EXIT
        echo "installed $program" >&2
    fi
    exec "$program" agent join "$MASTER" "$token" "$@" </dev/null
}

# All of it is read before any of it runs: a download that breaks off does nothing.
main "$@"
