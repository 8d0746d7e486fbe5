#!/usr/bin/env bash
# A hundred SIGKILLs of the daemon at random moments under mixed load, against a real PostgreSQL 18 and Milvus Lite; then
# every row of both sides is compared. Ends with 0 only if they are equal. The seed it prints replays the same moments.
#
#   scripts/kill-loop.sh [KILLS] [further options of `walvec demo`]
#
# Few dimensions, so that the time goes into dying and recovering rather than into vectors.
set -euo pipefail
cd "$(dirname "$0")/.."
kills=100
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    kills=$1
    shift
fi
exec cargo run --release --locked -- demo --kills "$kills" --rows 5000 --dimensions 64 "$@"
