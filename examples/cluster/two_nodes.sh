#!/usr/bin/env bash
# A Ray cluster of two nodes on this one machine, for demonstration: trains shadow models on it, then takes it down.
# Arguments go to train_shadows.py.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
work="$(mktemp -d)"
nodes=()

finish() {
    # Its own two nodes only: `ray stop` would end every Ray process on the machine.
    for node in "${nodes[@]}"; do kill "$node" 2>/dev/null || true; done
    for node in "${nodes[@]}"; do wait "$node" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT

# Whoever reaches a Ray cluster can run code on it, so it asks for a token, and this one has a token of its own.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$work/token" RAY_USAGE_STATS_ENABLED=0
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH")

port="$(python -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')"
export RAY_ADDRESS="127.0.0.1:$port"
ray start --head --block --port="$port" --num-cpus=1 --include-dashboard=false --temp-dir="$work/ray" >"$work/head.log" 2>&1 &
nodes+=($!)
until python -c "import socket; socket.create_connection(('127.0.0.1', $port), 1)" 2>/dev/null; do
    kill -0 "${nodes[0]}" || { cat "$work/head.log"; exit 1; }
    sleep 0.5
done
ray start --block --address="$RAY_ADDRESS" --num-cpus=1 >"$work/second.log" 2>&1 &
nodes+=($!)

python - <<'PYTHON'
import logging, time, ray

ray.init(log_to_driver=False, logging_level=logging.ERROR)
while len(ray.nodes()) < 2:
    time.sleep(0.5)
print(f"a cluster of {len(ray.nodes())} nodes with {ray.cluster_resources()['CPU']:.0f} CPUs")
PYTHON

python "$here/train_shadows.py" --executor ray --store "$work/models" "$@"
