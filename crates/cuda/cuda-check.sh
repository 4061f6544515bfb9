#!/usr/bin/env bash
# Checks and measures device code on this machine's CUDA device; needs no Rust. `cargo xtask cuda-check` makes the folder
# that this script runs in: the programs `tensormill` and `check`, and a small model.
#
# Writes a table to standard output and, as Markdown, to $OUT (or ./results). Environment, all optional:
#   DEVICE=0                 which device
#   MB=256                   MB of f32 that every format is compared on
#   TYPES=Q4_K,Q8_0          formats; all by default
#   STEPS="list parity sanitize bench convert"
#   GB=4                     weights of the model that is converted, in GB of bf16
#   SCRATCH=DIR              where that model and its conversions go; removed afterwards
#   TENSORMILL_NVRTC=DIR     NVRTC's libraries, if they are not found by themselves
set -uo pipefail
cd "$(dirname "$0")" || exit 1

device=${DEVICE:-0} types=${TYPES:-} steps=${STEPS:-list parity sanitize bench convert}
out=${OUT:-results}
mkdir -p "$out" || exit 1
export TENSORMILL_CACHE=${TENSORMILL_CACHE:-$PWD/cache}
select=(--device "$device")
[ -n "$types" ] && select+=(--types "$types")

name=$(./tensormill list devices --json | sed -n 's/.*"name": "\(.*\)".*/\1/p' | sed -n "$((device + 1))p")
if [ -z "$name" ]; then
    ./tensormill list devices
    echo "error: there is no device cuda:$device" >&2
    exit 1
fi
slug=$(printf %s "$name" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
file=$out/$(date -u +%Y-%m)-cuda-$slug.md
failed=()

step() { # NAME COMMAND...: runs a step, shows it, keeps it
    local title=$1
    shift
    printf '\n== %s\n' "$title"
    printf '\n## %s\n\n' "$title" >>"$file"
    "$@" 2>&1 | tee -a "$file"
    local code=${PIPESTATUS[0]}
    if [ "$code" -ne 0 ]; then
        failed+=("$title")
        printf '\nFAILED, exit code %s\n' "$code" | tee -a "$file"
    fi
}

wanted() { case " $steps " in *" $1 "*) true ;; *) false ;; esac; }

list() {
    ./tensormill list devices
    echo
    nvidia-smi --query-gpu=name,driver_version,pcie.link.gen.current,pcie.link.width.current --format=csv 2>/dev/null ||
        echo "nvidia-smi: not found"
    echo
    echo "$(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
    ./tensormill --version
}

sanitize() {
    local tool sanitizer
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
    if [ -z "$sanitizer" ]; then
        echo "skipped: compute-sanitizer was not found"
        return 0
    fi
    local code=0
    for tool in memcheck racecheck; do
        echo "$tool:"
        # A MB or two each: the tools are a thousand times slower.
        "$sanitizer" --tool "$tool" --error-exitcode 9 ./check parity "${select[@]}" --mb 1 --rows 7 --columns 768 --threads 2 |
            grep -v '^$' || code=1
    done
    return $code
}

convert() {
    local dir quant d model line
    dir=$(mktemp -d "${SCRATCH:-.}/cuda-check.XXXXXX") || return 1
    # shellcheck disable=SC2064
    trap "rm -rf '$dir'" RETURN
    ./check model "$dir/model" --like model --gb "${GB:-4}" || return 1
    model=$dir/model
    cat "$model/model.safetensors" >/dev/null
    echo
    echo "| recipe | device | seconds | GB/s read | on the device | peak memory |"
    echo "|---|---|---|---|---|---|"
    for quant in Q8_0 Q4_K_M Q6_K IQ4_XS; do
        for d in cpu "cuda:$device"; do
            rm -f "$dir/$d.gguf"
            ./tensormill convert "$model" -o "$dir/$d.gguf" --quant "$quant" --device "$d" --no-measure \
                --memory 4GiB --json >"$dir/report.json" || return 1
            line=$(tr -d '\n ' <"$dir/report.json")
            field() { printf %s "$line" | sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p"; }
            awk -v q="$quant" -v d="$d" -v s="$(field wall_seconds)" -v r="$(field read_bytes)" \
                -v e="$(field encoded_bytes)" -v p="$(field peak_rss_bytes)" 'BEGIN {
                printf "| %s | %s | %.2f | %.2f | %.2f GB | %.2f GB |\n", q, d, s, r / s / 1e9, e / 1e9, p / 1e9 }'
        done
        cmp "$dir/cpu.gguf" "$dir/cuda:$device.gguf" || return 1
    done
    echo
    echo "the files are the same byte by byte"
}

{
    echo "# Device code on $name, $(date -u +%Y-%m-%d)"
    echo
    echo "Written by \`cuda-check.sh\` (\`cargo xtask cuda-check\`)."
} >"$file"
wanted list && step "Device" list
wanted parity && step "Parity" ./check parity "${select[@]}" --mb "${MB:-256}"
wanted sanitize && step "compute-sanitizer" sanitize
wanted bench && step "Kernels" ./check bench "${select[@]}"
wanted convert && step "Conversions, source in the page cache, errors not measured" convert

printf '\n%s\n' "$file"
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
echo "all passed"
