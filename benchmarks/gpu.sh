#!/usr/bin/env bash
# What only a GPU can show, what tells most first: ten minutes there, on a machine that needs nothing but python3 with torch.
#
#   benchmarks/gpu.sh results/h200
#   DEVICE=cpu MODEL=shake_resnet8_2x4d IMAGES=300 STEPS=1 benchmarks/gpu.sh /tmp/tried      # tries the commands, measures nothing
#
# The folder gets each command's JSON and log; one that fails or takes too long costs the others nothing. Epochs are of noise, 50,000
# images like CIFAR-10's: they take as long. PEERS names a folder with pytorchcv, where it is not installed.
set -uo pipefail
mkdir -p "$1"
out=$(cd "$1" && pwd)
device=${DEVICE:-cuda} model=${MODEL:-shake_resnet26_2x32d} images=${IMAGES:-50000} steps=${STEPS:-10}
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$here/src:$here/benchmarks:${PEERS:-}" PYTHONUNBUFFERED=1
shakeshake() { python3 -m shakeshake "$@"; }
export -f shakeshake  # pieces.sh calls it
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

measure() { # NAME SECONDS COMMAND...
    local name=$1 limit=$2 began=$SECONDS code=0
    shift 2
    echo "== $name"
    timeout -k 10 "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
    tail -n 15 "$out/$name.log"
    echo "== $name: exit code $code after $((SECONDS - began)) s"
}

python3 - "$scratch/noise.npz" "$images" <<'END'
import sys
import numpy as np

some, n = np.random.default_rng(0), int(sys.argv[2])
split = lambda n: (some.integers(0, 256, (n, 32, 32, 3), np.uint8), some.integers(0, 10, n))
(x_train, y_train), (x_test, y_test) = split(n), split(n // 5)
np.savez(sys.argv[1], x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
END

peer=--no-peer
python3 -c 'import pytorchcv' 2>/dev/null && peer=--peer
net=(--device "$device" --model "$model")
train=(-- "$scratch/noise.npz" --recipe paper_cifar10 "${net[@]}")
cd "$here" || exit
measure steps 150 python3 benchmarks/small_steps.py "${net[@]}" --modes none --steps "$steps" "$peer" --out "$out/small_steps.json"
measure tests 60 python3 -m pytest -q -m gpu tests/train/test_gpu.py
measure piece 90 benchmarks/pieces.sh "$scratch/none" "$scratch/next" 0.7 "$out/piece" "${train[@]}"
measure steps-compiled 200 python3 benchmarks/small_steps.py "${net[@]}" --modes none,reduce-overhead --steps "$steps" --no-peer \
    --out "$out/small_steps_compiled.json"
measure piece-compiled 120 benchmarks/pieces.sh "$scratch/none" "$scratch/next-compiled" 1.2 "$out/piece-compiled" "${train[@]}" \
    --compile reduce-overhead
measure bench 60 python3 -m shakeshake bench "${net[@]}" --batch-size 128 --out "$out/bench.json"
