#!/usr/bin/env bash
# Every method on a GPU, within ten minutes: seconds and memory of a step with nnU-Net's own plans, eager and compiled,
# what a step waits for its loader, and the tests that need a GPU. The table is OUT/gpu.md.
#
#     export nnUNet_raw=... nnUNet_preprocessed=... nnUNet_results=...
#     benchmarks/gpu.sh OUT 4:3d_fullres 27:2d
#
# Datasets without plans are planned and preprocessed. What would begin after MINUTES (10) is left out and named beside
# the table. DEVICE (cuda), TRAINERS (methods), FED (trainers whose loaders are measured), STEPS (15) and PLANS (nnUNetPlans)
# change what is measured; PYTHON is the interpreter.
set -euo pipefail

OUT=${1:?where to write to}
shift
HERE=$(cd "$(dirname "$0")" && pwd)
DEVICE=${DEVICE:-cuda} PYTHON=${PYTHON:-python} STEPS=${STEPS:-15} MINUTES=${MINUTES:-10} PLANS=${PLANS:-nnUNetPlans}
read -ra TRAINERS <<<"${TRAINERS:-methods}"
# their loaders do least and most: distances, strong views, crops
read -ra FED <<<"${FED:-nnUNetTrainerSupervised nnUNetTrainerFixMatch nnUNetTrainerDTC nnUNetTrainerLDC}"
mkdir -p "$OUT"
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$OUT/compiled} TORCHINDUCTOR_FX_GRAPH_CACHE=1

# part NAME COMMAND...: unless it is too late; its output is OUT/NAME.log, and a failure stops no other part
part() {
    local name=$1
    shift
    if ((SECONDS >= MINUTES * 60)); then
        echo "$name: left out after $MINUTES minutes" | tee -a "$OUT/problems.txt"
    elif ! "$@" >"$OUT/$name.log" 2>&1; then
        echo "$name: failed, see $name.log" | tee -a "$OUT/problems.txt"
    fi
}

step_time() {
    local name=$1 dataset=$2
    shift 2
    part "$name" "$PYTHON" "$HERE/step_time.py" -d "${dataset%%:*}" -c "${dataset##*:}" -p "$PLANS" --device "$DEVICE" \
        --steps "$STEPS" --json "$OUT/$name.json" "$@"
}

rm -f "$OUT"/problems.txt "$OUT"/*.json
for dataset in "$@"; do
    id=${dataset%%:*}
    if ! compgen -G "$nnUNet_preprocessed/Dataset$(printf %03d "$id")_*/splits_ssl.json" >/dev/null; then
        part "prepare_$id" nnUNetv2_plan_and_preprocess -d "$id" -c "${dataset##*:}"
        part "splits_$id" nnunet_ssl splits -d "$id" --fractions 0.1 # l10, for the loaders' unlabelled stream
    fi
done
for dataset in "$@"; do step_time "eager_${dataset%%:*}" "$dataset" -tr "${TRAINERS[@]}"; done
for dataset in "$@"; do step_time "loaders_${dataset%%:*}" "$dataset" --loaders --split l10 -tr "${FED[@]}"; done
[ "$DEVICE" = cpu ] || part tests "$PYTHON" -m pytest -m gpu -n 0 -q "$HERE/../tests"
left=$#
for dataset in "$@"; do # compiling takes longest: each dataset has its share of the time that is left
    step_time "compiled_${dataset%%:*}" "$dataset" --compile --seconds $(((MINUTES * 60 - SECONDS) / left--)) -tr "${TRAINERS[@]}"
done

"$PYTHON" "$HERE/gpu_table.py" "$OUT" | tee "$OUT/gpu.md"
