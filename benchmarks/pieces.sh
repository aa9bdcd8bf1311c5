#!/usr/bin/env bash
# One piece of a long run on a machine that keeps nothing.
#
#   benchmarks/pieces.sh CARRIED NEXT MINUTES RECORD -- cifar10 --recipe paper_cifar10 --model shake_resnet26_2x32d
#
# CARRIED holds the files that the piece before left (empty or absent at the start), NEXT gets those for the piece after:
# at most 8 files of 16 MiB. RECORD gets metrics.jsonl (an epoch per line: errors, seconds, peak memory in MiB) and
# environment.json (every piece: device, versions, the step it began at); once the run has ended also result.json and
# config.json. Exit code 0: the run has ended; 130: it needs another piece.
set -euo pipefail
carried=$1 next=$2 minutes=$3 record=$4
shift 5
run=$(mktemp -d)/run
code=0
if [ -n "$(ls -A "$carried" 2>/dev/null)" ]; then
    shakeshake unpack "$carried" "$run"
    shakeshake resume "$run" --minutes "$minutes" || code=$?
else
    shakeshake train "$@" --out "$run" --minutes "$minutes" || code=$?
fi
[ "$code" = 0 ] || [ "$code" = 130 ] || exit "$code"
shakeshake pack "$run" "$next"
mkdir -p "$record"
for name in recipe.json environment.json metrics.jsonl result.json config.json; do
    [ ! -f "$run/$name" ] || cp "$run/$name" "$record"
done
exit "$code"
