#!/usr/bin/env bash
# A story in containers: put a file, kill a datanode, watch the cluster heal, get the file from what is left.
#
#   demo/run.sh                                         builds the image from source
#   DOLDAM_DOCKERFILE=Dockerfile.local demo/run.sh      takes the binary built on this machine (see README.md)
#
# Every wait has an end; containers, volumes and files of the demo are removed, also after a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

MEGABYTES=${DEMO_MEGABYTES:-256}
WAIT_SECS=${DEMO_WAIT_SECS:-120}

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '   %s\n' "$*"; }
fail() { printf '\nThe demo failed: %s\n' "$*" >&2; exit 1; }

command -v b3sum >/dev/null || fail "it compares with b3sum: install it (apt-get install b3sum, cargo install b3sum)"
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
command -v "${compose[0]}" >/dev/null || fail "it needs Docker with Compose"
compose+=(--project-name doldam-demo)

files=$(mktemp -d)
log=$(mktemp)
export DOLDAM_FILES=$files

cleanup() {
    status=$?
    if [ "$status" != 0 ]; then
        "${compose[@]}" ps || true
        "${compose[@]}" logs --no-color --tail=40 || true
    fi
    "${compose[@]}" down --volumes --remove-orphans >/dev/null 2>&1 || true
    rm -rf "$files" "$log"
    exit "$status"
}
trap cleanup EXIT

# doldam as the client service runs it: in a container of its own, on the cluster's network.
# What Compose says about making containers is left out.
client() { "${compose[@]}" run --rm -T client "$@" 2> >(sed '/client_run/d; s/^/   /' >&2); }
# The same inside the namenode's container, which is there already: quicker for questions.
ask() { "${compose[@]}" exec -T namenode /doldam --namenode namenode:8020 "$@"; }
report() { ask --json admin report 2>/dev/null || true; }
field() { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" <<<"$2"; }
states() { { grep -o "\"state\":\"$1\"" <<<"$2" || true; } | wc -l; }

# Prints the state of the cluster whenever it changed, with the seconds since $since, until `$2 STATE` holds.
since=$SECONDS
last=''
watch_until() {
    local what=$1 holds=$2 start=$SECONDS now line
    while :; do
        now=$(report)
        if [ -n "$now" ]; then
            line="$(states live "$now") live, $(states suspect "$now") suspect, $(states dead "$now") dead;"
            line="$line $(field under_replicated "$now") of $(field blocks "$now") blocks lack a replica"
            if [ "$line" != "$last" ]; then
                note "$(printf '%3d s  %s' $((SECONDS - since)) "$line")"
                last=$line
            fi
            if "$holds" "$now"; then return; fi
        fi
        [ $((SECONDS - start)) -lt "$WAIT_SECS" ] || fail "not within $WAIT_SECS s: $what"
        sleep 0.5
    done
}
all_live() { [ "$(states live "$1")" = 4 ]; }
debt_seen() { [ "$(field under_replicated "$1")" != 0 ]; }
healed() { [ "$(states dead "$1")" = 1 ] && [ "$(field under_replicated "$1")" = 0 ]; }

say "A cluster of containers: one namenode, four datanodes on two racks."
"${compose[@]}" down --volumes --remove-orphans >/dev/null 2>&1 || true
"${compose[@]}" up --detach --build >"$log" 2>&1 || { cat "$log"; fail "the containers do not start"; }
watch_until "four datanodes are live" all_live

say "A file of $MEGABYTES MiB of random bytes goes in, three replicas of each block."
head --bytes="${MEGABYTES}M" /dev/urandom >"$files/original"
before=$(b3sum --no-names "$files/original")
note "b3sum of the original          $before"
client put --block-size 16MiB original /demo.bin
stored=$(client checksum /demo.bin | cut -d' ' -f1)
note "doldam checksum of the copy    $stored"
[ "$stored" = "$before" ] || fail "the checksums differ"
ask fsck /demo.bin | sed 's/^/   | /'

say "datanode2 is killed (SIGKILL): its replicas are gone. Nobody gives a command."
since=$SECONDS
"${compose[@]}" kill -s SIGKILL datanode2 >"$log" 2>&1 || { cat "$log"; fail "datanode2 cannot be killed"; }
watch_until "the loss is noticed" debt_seen
watch_until "every block has three replicas again" healed

say "The file is read from what is left: three datanodes."
client get /demo.bin copy
after=$(b3sum --no-names "$files/copy")
note "b3sum of the original          $before"
note "b3sum of what came back        $after"
[ "$after" = "$before" ] || fail "the bytes differ"
ask fsck / | sed 's/^/   | /'

say "Identical. The demo is over; its containers and volumes are removed."
