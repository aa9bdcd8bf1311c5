#!/usr/bin/env bash
# What only a GPU can show, what tells most first, in under ten minutes: on a machine that needs nothing but python3 with torch.
#
#   benchmarks/gpu.sh FOLDER ARCHIVE.tgz
#   DEVICE=cpu MODEL=shake_resnet8_2x4d IMAGES=300 STEPS=1 benchmarks/gpu.sh /tmp/tried /tmp/tried.tgz   # tries the commands, measures nothing
#
# The folder gets each command's JSON and log, the archive all of them, anew after each: what is done is kept when the machine is taken
# away. A command that fails or takes too long costs the others nothing. Epochs are of noise, 50,048 images, so that an epoch has the 391
# steps of CIFAR-10 and all are of one size. PEERS names a folder with pytorchcv, where it is not installed.
set -uo pipefail
mkdir -p "$1"
out=$(cd "$1" && pwd) archive=$(realpath "$2")
device=${DEVICE:-cuda} model=${MODEL:-shake_resnet26_2x32d} images=${IMAGES:-50048} steps=${STEPS:-10}
here=$(cd "$(dirname "$0")/.." && pwd)
commit=$(git -C "$here" describe --always --dirty=+ --exclude='*' --abbrev=12 2>/dev/null) && export SHAKESHAKE_COMMIT=$commit
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
    tar czf "$archive.new" -C "$out" . && mv "$archive.new" "$archive"
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
small=(python3 benchmarks/small_steps.py "${net[@]}" --steps "$steps")
measure steps 80 "${small[@]}" --modes none "$peer" --out "$out/small_steps.json"
measure piece 70 benchmarks/pieces.sh "$scratch/none" "$scratch/next" 0.6 "$out/piece" "${train[@]}"
[ "$device" = cpu ] || measure recorded 60 "${small[@]}" --modes none --layouts 'at once' --recorded --no-peer --out "$out/small_steps_recorded.json"
measure compiled 150 "${small[@]}" --modes none,reduce-overhead --layouts 'at once' --no-peer --out "$out/small_steps_compiled.json"
measure piece-compiled 100 benchmarks/pieces.sh "$scratch/none" "$scratch/next-compiled" 1 "$out/piece-compiled" "${train[@]}" \
    --compile-mode reduce-overhead
measure tests 90 python3 -m pytest -v -W default -m gpu tests/train/test_gpu.py
measure bench 40 python3 -m shakeshake bench "${net[@]}" --batch-size 128 --out "$out/bench.json"
