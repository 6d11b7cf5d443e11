#!/usr/bin/env bash
# What is fetched of files before anybody opens them: the shard behind the shard that is being read, the first one of a model whose
# index was read, the small files behind those that were opened in order. Told by the daemon's counters: nearly all of it is
# used, readers in random order have nothing fetched for them before a quarter, and one who stops has cost a window. From a directory, a web server
# and an S3 server.
TEST_DEADLINE_S=280
source "$(dirname -- "$0")/disk_lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

MIB=1048576
tree=$source_dir
SHARD_MIB=24
mkdir -p "$tree/model" "$tree/images" "$tree/few"
for number in 1 2 3 4; do
  "$MOUNT_PROBE" write "$tree/model/part-0000$number-of-00004.safetensors" $((SHARD_MIB * MIB + number)) 1 "$number"
done
"$PYTHON" - "$tree" <<'PYTHON'
import json, os, random, sys
root, numbers = sys.argv[1], random.Random(3)
with open(f"{root}/model/model.safetensors.index.json", "w") as file:
    weights = {f"layer.{i}.weight": f"part-0000{1 + i // 25}-of-00004.safetensors" for i in range(100)}
    json.dump({"metadata": {"total_size": 4}, "weight_map": weights}, file)
for i in range(400):
    with open(f"{root}/images/{numbers.randrange(10**9):09}.jpg", "wb") as file:
        file.write(numbers.randbytes(5000 + i * 200))
for i in range(20):
    with open(f"{root}/few/{i:02}.txt", "wb") as file:
        file.write(numbers.randbytes(3000))
PYTHON
settle "$tree/few/19.txt"
cat >"$MOUNT_TMP/read.py" <<'PYTHON'
"""read.py MOUNT ORIGINAL listed|by_name|shuffled [COUNT]: lists the directory and reads that many of its files, each whole."""
import os, random, sys
mount, original, order, count = sys.argv[1], sys.argv[2], sys.argv[3], int((sys.argv[4:] or ["1000000"])[0])
names = [entry.name for entry in os.scandir(mount)]
if order == "by_name":
    names.sort()
elif order == "shuffled":
    random.Random(5).shuffle(names)
for name in names[:count]:
    with open(f"{mount}/{name}", "rb") as ours, open(f"{original}/{name}", "rb") as theirs:
        if ours.read() != theirs.read():
            sys.exit(f"wrong bytes in {name}")
PYTHON

prefetched() { status "volume['prefetch']['$1']"; }
brought() { status "volume['prefetch']['disk'] + volume['prefetch']['origin']"; }
told() { status "volume['prefetch']"; }
is_still() { [[ $(status "(node['tiers']['memory']['pinned_frames'], volume['open'])") == "(0, 0)" ]]; }
# comes_to_rest: everything is closed, nothing under way.
comes_to_rest() { wait_for 20 "nothing is open or under way" is_still; }
begin() { start_mount "$ORIGIN" "$mnt" "${ORIGIN_OPTIONS[@]}" "$@"; }
read_files() { "$PYTHON" "$MOUNT_TMP/read.py" "$mnt/$1" "$tree/$1" "${@:2}" || fail "reading $*"; }
read_shard() { compare "model/part-0000$1-of-00004.safetensors"; }
compare() { cmp "$tree/$1" "$mnt/$1" || fail "wrong bytes in $1"; }
little_wasted() {
  local read=$1
  (($(prefetched wasted) * 20 <= read)) || fail "of $read bytes that were read $(prefetched wasted) were wasted: $(told)"
  [[ $(prefetched failed) == 0 ]] || fail "pieces failed: $(told)"
}
# fetched_once BYTES: the origin gave no byte twice.
fetched_once() { (($(status "volume['origin_bytes']") <= $1)) || fail "of $1 bytes the origin gave $(status "volume['origin_bytes']")"; }

# All shards in their order: the index foretells the first, each shard the next.
whole_model() {
  local bytes=$((4 * SHARD_MIB * MIB + 65536)) number
  begin
  compare model/model.safetensors.index.json
  is_foretold() { [[ $(prefetched files) == 1 ]]; }
  wait_for 10 "the first shard is foretold by the index" is_foretold
  for number in 1 2 3 4; do
    read_shard "$number"
    (($(prefetched files) <= number + 1)) || fail "more than one shard ahead: $(told)"
    if ((number < 4)); then
      is_foretold() { [[ $(prefetched files) == $((number + 1)) ]]; }
      wait_for 10 "shard $((number + 1)) is foretold" is_foretold
    fi
  done
  comes_to_rest
  [[ $(prefetched files_opened) == 4 ]] || fail "not all shards were opened as foretold: $(told)"
  (($(prefetched used) * 10 >= bytes * 8)) || fail "too little was fetched ahead: $(told)"
  little_wasted "$bytes"
  fetched_once $((bytes + 16))
  say "model: $(told)"
  stop_mount "$mnt"
}

# Two processes that read the same shards, one a little behind the other: each byte is fetched once, but for a block that both
# come to at once, one with a frame of a block and one with a chunk's (cache/memory_tier_plan.cc). (Whether it was of use is
# counted for each open file, and the page cache answers one from what was fetched for the other.)
two_processes() {
  local number second
  begin
  for number in 1 2 3 4; do
    read_shard "$number" &
    second=$!
    read_shard "$number"
    wait "$second" || fail "the second reader of shard $number"
  done
  comes_to_rest
  (($(prefetched files_opened) >= 1)) || fail "no shard was foretold: $(told)"
  fetched_once $((4 * SHARD_MIB * MIB * 101 / 100))
  say "two processes: $(told)"
  stop_mount "$mnt"
}

# Who stops after a shard has cost a window of the next one, and the memory for it is given back.
stops_after_shard() {
  local fetched
  begin -o prefetch.idle_timeout=1s
  read_shard 2
  is_foretold() { [[ $(prefetched files) == 1 && $(prefetched wasted) -ge $((SHARD_MIB * MIB / 8)) ]]; }
  wait_for 20 "nobody opened the next shard, so it is given up" is_foretold
  comes_to_rest
  fetched=$(brought)
  # No shard has followed another yet: an eighth of it.
  ((fetched <= SHARD_MIB * MIB * 9 / 8 + 65536)) || fail "more than a shard and an eighth was fetched: $(told)"
  (($(prefetched used) + $(prefetched wasted) >= fetched - MIB)) || fail "uncounted: $(told)"
  say "stops after a shard: $(told)"
  stop_mount "$mnt"
}

# The start and the middle of shards say nothing of the next one.
parts_of_shards() {
  local number
  begin
  for number in 1 2 3; do
    dd if="$mnt/model/part-0000$number-of-00004.safetensors" of="$MOUNT_TMP/part" bs=64K count=4 skip=$((number * 40)) \
      iflag=direct status=none
  done
  comes_to_rest
  [[ $(prefetched files) == 0 ]] || fail "shards were foretold: $(told)"
  say "parts of shards: $(told)"
  stop_mount "$mnt"
}

in_order() {
  local bytes
  begin
  read_files images "$1"
  bytes=$(du -sb --apparent-size "$tree/images" | cut -f 1)
  comes_to_rest
  (($(prefetched files_opened) >= 240)) || fail "of 400 files in order $(prefetched files_opened) were foretold: $(told)"
  (($(prefetched files) - $(prefetched files_opened) <= 16)) || fail "files were foretold in vain: $(told)"
  (($(prefetched used) * 10 >= bytes * 6 && $(prefetched used) <= bytes)) || fail "of $bytes bytes not most were used: $(told)"
  little_wasted "$bytes"
  fetched_once "$bytes"
  say "$1: $(told)"
  stop_mount "$mnt"
}

# For shuffled readers of a directory of a few files nothing is fetched, of a larger one the rest when a quarter was opened
# (prefetch_members.sh), and nearly all of it is used. A second epoch finds everything there.
shuffled() {
  local fetched bytes
  bytes=$(du -sb --apparent-size "$tree/images" | cut -f 1)
  begin
  read_files few shuffled
  comes_to_rest
  [[ $(prefetched files) == 0 && $(brought) == 0 ]] || fail "shuffled readers had files fetched for them: $(told)"
  read_files images shuffled
  comes_to_rest
  fetched=$(prefetched files)
  ((fetched >= 180)) || fail "of the 300 files behind the first quarter $fetched were fetched ahead: $(told)"
  (($(prefetched files_opened) * 100 >= fetched * 95)) || fail "files were fetched in vain: $(told)"
  little_wasted "$(brought)"
  fetched_once $((bytes + 20 * 3000))
  read_files images by_name
  [[ $(prefetched files) == "$fetched" ]] || fail "what is there was fetched ahead: $(told)"
  say "shuffled: $(told)"
  stop_mount "$mnt"
}

stops_in_order() {
  begin -o prefetch.idle_timeout=1s
  read_files images by_name 100
  comes_to_rest
  (($(prefetched files) - $(prefetched files_opened) <= 16)) || fail "one who stops has cost more than 16 files: $(told)"
  are_given_up() { [[ $(status "volume['prefetch']['used'] + volume['prefetch']['wasted']") -ge $(brought) ]]; }
  wait_for 20 "what nobody opened is given up" are_given_up
  say "stops in order: $(told)"
  stop_mount "$mnt"
}

check() {
  whole_model
  two_processes
  stops_after_shard
  parts_of_shards
  in_order listed
  in_order by_name
  shuffled
  stops_in_order
}
ORIGIN=$tree ORIGIN_OPTIONS=()
with_each_transport check

remote() {
  whole_model
  stops_after_shard
  in_order by_name
  shuffled
}
MODE_CORES=2
MODE_TRANSPORT=$(transports | sed -n 1p)

with_http() {
  local port
  (install_nginx) || return 0
  port=$(free_port)
  start_tree_server "$port" "$tree"
  trap 'kill "$NGINX_PID" 2>/dev/null; wait "$NGINX_PID"' EXIT
  wait_for 20 "nginx" curl -fsS --noproxy '*' -o "$MOUNT_TMP/output" "http://127.0.0.1:$port/"
  say "== HTTP"
  ORIGIN=http://127.0.0.1:$port/ ORIGIN_OPTIONS=()
  remote
  kill "$NGINX_PID"
  wait "$NGINX_PID" || true
}

with_s3() {
  start_s3
  s3 tree blobs '' "$tree"
  say "== S3"
  # After -o volume.revalidate=0s the origin would be asked for every name once more.
  ORIGIN=s3://blobs ORIGIN_OPTIONS=("${S3_OPTIONS[@]/volume.revalidate=0s/volume.revalidate=60s}")
  remote
}

with_http
with_s3
