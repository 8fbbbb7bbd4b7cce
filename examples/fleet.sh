#!/bin/sh
# Two gates share one limit of 100 requests a day through Valkey or Redis. Their folders stand for
# two machines. This needs the program keytally with the command agent (cargo install
# keytally-server, or pip install keytally-cli) and valkey-server or redis-server:
#
#   sh examples/fleet.sh
#
# It prints:
#
#   one: 60 of 60 requests admitted
#   two: 40 of 120 requests admitted
#   together: 100 of a limit of 100
#
# An argument names the program of another server. docs/how-to/share-limits.md continues from here.
set -eu

if ! server=${1:-$(command -v valkey-server || command -v redis-server)}; then
    echo "fleet.sh: install valkey-server or redis-server first" >&2
    exit 1
fi
folder=$(mktemp -d)
started=""
trap 'kill $started 2> /dev/null || true; wait; rm -r "$folder"' EXIT
trap 'exit 1' INT TERM
cd "$folder"

"$server" --port 0 --unixsocket "$folder/store.sock" --save "" > store.log &
started=$!

# The gates have one key and one pepper.
KEYTALLY_PEPPER=$(openssl rand -hex 32)
export KEYTALLY_PEPPER
mkdir one two
keytally create one/api.gate --keys 100 --plan default=100/day > create.log
keytally issue one/api.gate --account 42 > key 2> issue.log
keytally copy one/api.gate two/api.gate > copy.log

# An agent on each machine leases units of the limit from the store. It creates the fleet file.
for machine in one two; do
    keytally agent $machine/api.gate --file $machine/api.fleet --fleet example --on-loss closed \
        --store "unix://$folder/store.sock" 2> $machine/agent.log &
    started="$started $!"
done
for machine in one two; do
    tries=0
    until keytally fleet status $machine/api.gate --file $machine/api.fleet > status 2>&1; do
        tries=$((tries + 1))
        if [ $tries = 300 ]; then
            cat store.log $machine/agent.log status >&2
            exit 1
        fi
        sleep 0.1
    done
    keytally fleet join $machine/api.gate --file $machine/api.fleet > join.log
done

# Sends requests to a machine, and prints how many are admitted.
requests() {
    for _ in $(seq "$2"); do
        keytally check "$1/api.gate" --fleet "$1/api.fleet" < key || true
        sleep 0.05
    done | grep -c ^admitted
}

one=$(requests one 60)
echo "one: $one of 60 requests admitted"
two=$(requests two 120)
echo "two: $two of 120 requests admitted"
echo "together: $((one + two)) of a limit of 100"
