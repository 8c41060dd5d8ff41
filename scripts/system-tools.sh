#!/usr/bin/env bash
# Installs the programs that tests drive or stand behind: as root on Debian and its kin. Elsewhere it says what is missing, and pytest
# skips those tests by name. Under CI=true a missing program is an error. Nothing is started.
set -euo pipefail

# program:Debian package
tools=(
    curl:curl
    wrk:wrk
    h2load:nghttp2-client
    ab:apache2-utils
    node:nodejs
    npm:npm
    redis-server:redis-server
    nginx:nginx-light
    haproxy:haproxy
    caddy:caddy
    systemd-analyze:systemd
    systemd-socket-activate:systemd
    unshare:util-linux
    strace:strace
    docker-compose:docker-compose
    chromium:chromium
    chromedriver:chromium-driver
)
PATH=$PATH:/usr/sbin:/sbin

# Fills `programs` and `packages` with what is missing.
look() {
    programs=() packages=()
    local tool
    for tool in "${tools[@]}"; do
        if ! command -v "${tool%%:*}" >/dev/null; then
            programs+=("${tool%%:*}") packages+=("${tool##*:}")
        fi
    done
}

install() {
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then # no package may start its service
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
    fi
    apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null || true
}

look
if ((${#packages[@]})) && ((EUID == 0)) && command -v apt-get >/dev/null; then
    echo "Installing ${packages[*]}"
    install "${packages[@]}"
    look
fi
if ((${#programs[@]})); then
    echo "Not found: ${programs[*]}. Tests that need them are skipped. Debian's packages: ${packages[*]}" >&2
    if [[ ${CI:-} == true ]]; then exit 1; fi
fi
