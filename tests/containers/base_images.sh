#!/usr/bin/env bash
# Makes stand-ins for the images that compose.yaml names, from Debian packages, under their real tags: no registry is asked.
#
# Usage: base_images.sh DIRECTORY root    fetches Python's root file system there; needs no engine
#        base_images.sh DIRECTORY python  imports it into the engine of engine.sh
#        base_images.sh DIRECTORY others  builds Redis and Prometheus over it. Grafana has none: Debian does not have it.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
state=$(realpath -m "$1")
mkdir -p "$state"
# shellcheck source=/dev/null
[ "$2" = root ] || . "$state/env"

say() { printf '%s base images: %s\n' "$(date +%T)" "$*"; }
has() { docker image inspect "$1" > /dev/null 2>&1; }
image_of() { sed -n 's/.*image: ${'"$1"':-\([^}]*\)}.*/\1/p' "$here/../../compose.yaml"; }

fetch_root() {
    local root="$state/rootfs" mirror
    [ ! -e "$state/.root-fetched" ] || return 0
    say "fetching Python's root file system"
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | sort | uniq -c | sort -rn | awk 'NR==1 {print $2}')
    rm -rf "$root"
    timeout 400 debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,python3-pip,tzdata,netbase \
        bookworm "$root" "$mirror" > "$state/debootstrap.log" 2>&1 || { tail -5 "$state/debootstrap.log"; exit 1; }
    ln -sf /usr/bin/python3 "$root/usr/local/bin/python"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/usr/share/{doc,man,locale}/* "$root/usr/lib/python3.11/EXTERNALLY-MANAGED"
    touch "$state/.root-fetched"
}

# Python as Debian has it. What lets this machine reach its package index (a CA, pip's settings) belongs to the machine,
# not to the project's Dockerfiles: it goes into the stand-in.
import_python() {
    local root="$state/rootfs" changes=() name
    if [ -n "${SSL_CERT_FILE:-}" ]; then
        install -D -m 0644 "$SSL_CERT_FILE" "$root/etc/ssl/certs/ca-certificates.crt"
        changes+=(-c "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt" -c "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt")
    fi
    for name in PIP_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT HTTPS_PROXY HTTP_PROXY NO_PROXY; do
        if [ -n "${!name:-}" ]; then changes+=(-c "ENV $name=${!name}"); fi
    done
    tar -C "$root" -c . | docker import "${changes[@]}" -c 'CMD ["python3"]' - "$1" > /dev/null
}

build() { timeout 300 docker build --quiet --network host --build-arg "BASE_IMAGE=$2" --tag "$1" --file "$here/stand_ins/$3.Dockerfile" "$here/stand_ins" > /dev/null; }

python_image=python:3.11-slim-bookworm
redis_image=$(image_of REDIS_IMAGE)
prometheus_image=$(image_of PROMETHEUS_IMAGE)
case $2 in
    root) fetch_root ;;
    python) has "$python_image" || { say "$python_image from Debian's python3"; import_python "$python_image"; } ;;
    others)
        say "$redis_image from Debian's redis-server, $prometheus_image from Debian's prometheus"
        build "$redis_image" "$python_image" redis
        build "$prometheus_image" "$python_image" prometheus
        ;;
esac
