#!/bin/sh
# A release on a real Slurm: an array of four parts through `tensormill submit slurm --run`, one of them killed with
# SIGKILL, one told that its time limit is near; both come back and go on; the dependent job publishes; the files equal
# those of one process. Then a second array is cancelled, and must stay away.
#
#   tests/slurm/run.sh [path/to/tensormill]        LAYERS=8 makes the model larger (59 MB of bf16 each, 4 by default)
#
# Debian: apt-get install --no-install-recommends slurm-wlm munge. The daemons run in a temporary folder with ports,
# keys and logs of their own, and are stopped at the end. Without slurmctld the test is skipped.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mill=${1:-$here/../../target/release/tensormill}
PATH=$PATH:/usr/sbin:/sbin
for tool in munged slurmctld slurmd sbatch scontrol squeue scancel; do
    command -v "$tool" >/dev/null || { echo "skipped: there is no $tool on this machine"; exit 0; }
done
[ -x "$mill" ] || { echo "$mill is not there: build it, or give its path" >&2; exit 2; }
mill=$(cd "$(dirname "$mill")" && pwd)/${mill##*/}

D=$(mktemp -d)
started=
stop() {
    code=$?
    [ -z "${array:-}" ] || scancel "$array" 2>/dev/null || true
    [ -z "${cancelled:-}" ] || scancel "$cancelled" 2>/dev/null || true
    [ "$code" = 0 ] || { echo "--- logs"; tail -n 15 "$D"/log/* "$D"/work/*.out 2>/dev/null; } >&2
    for pid in $started; do kill "$pid" 2>/dev/null || true; done
    wait
    rm -rf "$D"
    exit "$code"
}
trap stop EXIT
trap 'exit 130' INT TERM
fail() { echo "FAILED: $*" >&2; exit 1; }
say() { echo "$(($(date +%s) - began)) s: $*"; }
began=$(date +%s)

# --- Slurm
user=$(id -un) host=$(hostname -s) port=$((20000 + $$ % 20000))
mkdir -p "$D/munge" "$D/state" "$D/spool" "$D/log" "$D/work"
chmod 700 "$D/munge"
chmod 755 "$D"
head -c 1024 /dev/urandom >"$D/munge/key"
chmod 400 "$D/munge/key"
cat >"$D/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$D/munge/socket
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd.pid
SlurmctldLogFile=$D/log/slurmctld
SlurmdLogFile=$D/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$D/slurm.conf"
munged -F --force --key-file="$D/munge/key" --socket="$D/munge/socket" --pid-file="$D/munge/pid" \
    --log-file="$D/log/munged" --seed-file="$D/munge/seed" 2>/dev/null &
started="$!"
sleep 1
slurmctld -D -f "$SLURM_CONF" >/dev/null 2>&1 &
started="$! $started"
sleep 2
slurmd -D -f "$SLURM_CONF" >/dev/null 2>&1 &
started="$! $started"
tries=0
until [ "$(sinfo -h -o %T 2>/dev/null)" = idle ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || fail "the node does not become idle: $(sinfo 2>&1)"
    sleep 1
done
say "Slurm $(sinfo --version | cut -d' ' -f2) is up"

# --- A model of the demo's architecture with larger matrices; every byte is 0x30 to 0x3f, so every bf16 is finite.
layers=${LAYERS:-4} hidden=2048
model="$D/work/it's a model"
mkdir -p "$model"
for f in "$here"/../../golden/models/tiny-llama/*; do
    case $f in *.safetensors | */config.json) ;; *.json | *.model) cp "$f" "$model" ;; esac
done
sed -e "s/\"\(hidden_size\|intermediate_size\)\": [0-9]*/\"\1\": $hidden/" \
    -e "s/\"\(num_attention_heads\|num_key_value_heads\)\": [0-9]*/\"\1\": $((hidden / 64))/" \
    -e "s/\"num_hidden_layers\": [0-9]*/\"num_hidden_layers\": $layers/" \
    "$here/../../golden/models/tiny-llama/config.json" >"$model/config.json"
awk -v h="$hidden" -v n="$layers" '
    function tensor(name, rows, cols,   bytes) {
        bytes = rows * (cols ? cols : 1) * 2
        printf "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%d,%d]}", sep, name, \
            cols ? rows "," cols : rows, at, at + bytes
        at += bytes; sep = ","
    }
    BEGIN {
        printf "{"
        tensor("model.embed_tokens.weight", 384, h); tensor("model.norm.weight", h)
        split("self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj", m, " ")
        for (i = 0; i < n; i++) {
            p = "model.layers." i "."
            for (j = 1; j <= 7; j++) tensor(p m[j] ".weight", h, h)
            tensor(p "input_layernorm.weight", h); tensor(p "post_attention_layernorm.weight", h)
        }
        printf "}"
        print at >"/dev/stderr"
    }' >"$D/header" 2>"$D/bytes"
bytes=$(cat "$D/bytes")
little() { # a number as eight bytes, the least first
    n=$1
    for _ in 1 2 3 4 5 6 7 8; do
        printf "\\$(printf %03o $((n % 256)))"
        n=$((n / 256))
    done
}
small='\060-\077\060-\077\060-\077\060-\077'
{
    little "$(wc -c <"$D/header")"
    cat "$D/header"
    head -c "$bytes" /dev/urandom | tr '\000-\377' "$small$small$small$small"
} >"$model/model.safetensors"
release() { # FOLDER FILE
    cat >"$2" <<TOML
[source]
path = "it's a model"
[release]
name = "Slurm \$(test)"
folder = "$1"
memory = "256MiB"
threads = 1
[[variant]]
quant = "Q4_K_M"
[[variant]]
quant = "Q6_K"
[[variant]]
quant = "IQ4_XS"
max_shard_size = "20MB"
TOML
}
release one "$D/work/one.toml"
release many "$D/work/it's a \"release\".toml"
release gone "$D/work/gone.toml"
say "the model has $((bytes / 1000000)) MB"

# --- One process, with every SIMD level; then parts, slow enough to be killed
cd "$D/work"
"$mill" release one.toml --progress none >/dev/null
say "one process is done"
export TENSORMILL_SIMD=scalar
state() { scontrol show job "$1" 2>/dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p' | head -n 1; }
restarts() { scontrol show job "$1" 2>/dev/null | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p' | head -n 1; }
number() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$D/submitted"; }
pid_of_part() { pgrep -f "^$mill release $D/.*--shard $1/4" || true; }
until_() { # SECONDS WHAT COMMAND...
    limit=$(($(date +%s) + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$(date +%s)" -lt "$limit" ] || fail "waited too long: $what"
        sleep 0.3
    done
}
noted() { # PART: some tiles of it are durable
    file=$(find many -name "*.tensormill-journal-$1-of-4" 2>/dev/null)
    [ -n "$file" ] && [ "$(wc -c <"$file")" -gt 800 ]
}
parts=$(date +%s)
"$mill" submit slurm "it's a \"release\".toml" -n 4 --run --json --time 30 >"$D/submitted"
array=$(number array_job) finish=$(number finish_job)
say "submitted: array $array, finish $finish"

until_ 120 "part 2 notes its first tiles" noted 2
killed=$(pid_of_part 2)
[ -n "$killed" ] || fail "part 2 is not at work any more: raise LAYERS"
kill -KILL "$killed"
say "killed part 2 (SIGKILL) with $(wc -c <"$(find many -name '*-2-of-4')") bytes in its journal"
until_ 120 "part 3 notes its first tiles" noted 3
[ -n "$(pid_of_part 3)" ] || fail "part 3 is not at work any more: raise LAYERS"
scancel --batch --signal=USR1 "${array}_3"
say "told part 3 that its time limit is near"
requeued() { [ "$(restarts "${array}_$1")" = 1 ]; }
until_ 60 "part 2 is requeued" requeued 2
until_ 60 "part 3 is requeued" requeued 3
say "both are requeued"
# Slurm waits two minutes before a requeued job starts; ten seconds are enough for it not to take the new try for the
# one that ended (within a second it does: "credential revoked").
sleep 10
now() { [ "$(state "${array}_$1")" != PENDING ] || scontrol update JobId="${array}_$1" StartTime=now 2>/dev/null; }
until_ 60 "part 2 may start" now 2
until_ 60 "part 3 may start" now 3
[ "$(state "$finish")" = PENDING ] || fail "the publishing job does not wait: $(state "$finish")"
ended() { case $(state "$1") in PENDING | RUNNING | COMPLETING | CONFIGURING) false ;; *) true ;; esac; }
until_ 900 "the publishing job ends" ended "$finish"
[ "$(state "$finish")" = COMPLETED ] || fail "the publishing job: $(state "$finish")"
say "published, $(($(date +%s) - parts)) s after it was submitted"
grep -h "asking for restart" slurm-"$array"_[23].out || fail "no restart was asked for"
grep -h "stood already" slurm-"$array"_[23].out || fail "nothing of the first tries was used"

# --- The same files
sums() { (cd "$1" && find . -name '*.gguf' | sort | xargs -d '\n' sha256sum); }
sums one >"$D/one"
sums many >"$D/many"
cat "$D/many"
cmp "$D/one" "$D/many" || fail "the files differ from those of one process"
(cd many && sha256sum --quiet -c SHA256SUMS) || fail "SHA256SUMS does not fit the files"
left=$(find many -name '.*' ! -name . | head -n 3)
[ -z "$left" ] || fail "left over: $left"
say "$(wc -l <"$D/many") files: the same bytes as one process"

# --- The script that is printed; and what is cancelled stays away
"$mill" submit slurm gone.toml -n 2 --time 30 >submit.sh
said=$(sh submit.sh)
cancelled=$(echo "$said" | sed -n 's/^parts: job \([0-9]*\);.*/\1/p') after=${said##* }
[ -n "$cancelled" ] || fail "the printed script: $said"
running() { [ "$(state "${cancelled}_1")" = RUNNING ]; }
until_ 60 "part 1 runs" running
sleep 2
scancel "$cancelled"
until_ 60 "the array ends" ended "${cancelled}_1"
until_ 60 "the publishing job is given up" ended "$after"
sleep 3
[ "$(state "${cancelled}_1") $(state "$after")" = "CANCELLED CANCELLED" ] ||
    fail "after scancel: $(state "${cancelled}_1"), $(state "$after")"
say "a cancelled array stays away, and so does its publishing job"
echo "passed"
