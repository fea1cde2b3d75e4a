#!/usr/bin/env bash
# All that is to be measured or trained on a GPU, in parts of at most ten minutes, each independent of the others.
#
#     benchmarks/gpu.sh              # all parts, one after the other
#     benchmarks/gpu.sh --list       # what they are
#     benchmarks/gpu.sh 1 2 5        # some of them
#     benchmarks/gpu.sh --tiny       # all of them on a CPU with tiny numbers, to see that they run
#
# Each part writes benchmarks/gpu/NAME.json with the device's name; commit the files that you want to be quoted. A part that
# fails is named at the end, and the others go on.
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
"$python" -c "import darklens, torch" 2> /dev/null || {
    echo "gpu.sh: $python has no darklens or no PyTorch; run 'make setup' first" >&2
    exit 2
}
exec "$python" benchmarks/gpu.py "$@"
