#!/usr/bin/env bash
# Starts a Docker engine of the test's own, from Debian packages: nothing on the machine but apt is needed, and no registry.
#
# Usage: engine.sh DIRECTORY [tools]; `tools` installs what the machine itself must have, and no more. Everything lies there; DIRECTORY/env then holds what the docker commands need.
set -euo pipefail
state=$(realpath -m "$1")
tools="$state/tools"
mkdir -p "$state" "$tools"

say() { printf '%s engine: %s\n' "$(date +%T)" "$*"; }

# The mirror that this machine uses, whatever it is.
mirror() { apt-get indextargets --format '$(REPO_URI)' | grep -v security | sort | uniq -c | sort -rn | awk 'NR==1 {print $2}'; }

# Engine and Compose of Debian 13: those of Debian 12 are too old for this compose.yaml. They run on glibc ≥ 2.34.
install_engine() {
    local apt="$state/apt"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/debs"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) trixie main" > "$apt/sources.list"
    local options=(-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
                   -o "Dir::Cache=$apt/cache" -o Dir::State::status=/dev/null -o APT::Sandbox::User=root
                   -o Acquire::Languages=none -o Acquire::Retries=3)
    timeout 180 apt-get "${options[@]}" -qq update
    (cd "$apt/debs" && timeout 300 apt-get "${options[@]}" -qq download docker.io docker-cli docker-buildx docker-compose containerd tini)
    for deb in "$apt"/debs/*.deb; do dpkg -x "$deb" "$tools"; done
    mkdir -p "$state/client/cli-plugins"
    for plugin in docker-compose docker-buildx; do
        ln -sf "$(find "$tools" -type f -path "*cli-plugins/$plugin" | head -1)" "$state/client/cli-plugins/$plugin"
    done
    rm -rf "$apt"
    touch "$state/.engine-installed"
}

install_host_tools() {
    local wanted=()
    for tool in runc iptables debootstrap; do command -v "$tool" > /dev/null || [ -x "/usr/sbin/$tool" ] || wanted+=("$tool"); done
    [ ${#wanted[@]} = 0 ] && return
    timeout 300 apt-get -qq update
    DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -qq install -y --no-install-recommends "${wanted[@]}" > /dev/null
}

start() {
    export PATH="$tools/usr/sbin:$tools/usr/bin:$PATH"
    # the engine stays inside the test's directory, and is known by its pid file alone
    setsid dockerd --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/dockerd.pid" --init-path "$tools/usr/bin/tini-static" -H "unix://$state/docker.sock" \
        > "$state/dockerd.log" 2>&1 < /dev/null &
    for _ in $(seq 100); do
        if docker -H "unix://$state/docker.sock" info > /dev/null 2>&1; then return; fi
        sleep 0.3
    done
    say "the engine did not start; the end of its log:"
    tail -20 "$state/dockerd.log"
    return 1
}

running() { [ -s "$state/dockerd.pid" ] && kill -0 "$(cat "$state/dockerd.pid")" 2> /dev/null; }

[ "$(id -u)" = 0 ] || { say "needs root: it starts an engine"; exit 1; }
[ "${2:-}" != tools ] || { install_host_tools; exit 0; }
install_host_tools
[ -e "$state/.engine-installed" ] || { say "fetching engine, Compose and buildx"; install_engine; }
cat > "$state/env" <<END
export PATH="$tools/usr/sbin:$tools/usr/bin:\$PATH"
export DOCKER_HOST="unix://$state/docker.sock"
export DOCKER_CONFIG="$state/client"
END
if running; then
    say "is running already"
else
    rm -f "$state/dockerd.pid"
    say "starting"
    start
fi
# shellcheck source=/dev/null
. "$state/env"
say "docker $(docker version --format '{{.Server.Version}}'), compose $(docker compose version --short)"
