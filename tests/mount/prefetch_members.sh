#!/usr/bin/env bash
# The rest of a directory that an epoch reads shuffled is fetched once a quarter of it was opened: nearly all of what was fetched is
# used, every byte and every request is once, the next epoch costs nothing, and readers of a tenth or of the same files have nothing
# fetched. What waits for its reader survives on disk. From a directory and from a web server, told by the daemon's counters and
# the server's log.
TEST_DEADLINE_S=150
source "$(dirname -- "$0")/disk_lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

tree=$source_dir
FILES=600
mkdir -p "$tree/photos"
"$PYTHON" - "$tree/photos" "$FILES" <<'PYTHON'
import random, sys
folder, count = sys.argv[1], int(sys.argv[2])
numbers = random.Random(4)
for i in range(count):
    with open(f"{folder}/{numbers.randrange(10**9):09}.jpg", "wb") as file:
        file.write(numbers.randbytes(4000 + i * 100))
PYTHON
settle "$tree/photos"
for file in "$tree"/photos/*; do LAST=$file; done
settle "$LAST"
BYTES=$(find "$tree/photos" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')

# Lists the directory and reads files of it, each whole and compared.
cat >"$MOUNT_TMP/epoch.py" <<'PYTHON'
"""epoch.py MOUNT ORIGINAL SEED FROM TO: of the files in the shuffled order of SEED those from FROM to TO."""
import os, random, sys
mount, original, seed, first, end = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
names = sorted(entry.name for entry in os.scandir(mount))
random.Random(seed).shuffle(names)
for name in names[first:end]:
    with open(f"{mount}/{name}", "rb") as ours, open(f"{original}/{name}", "rb") as theirs:
        if ours.read() != theirs.read():
            sys.exit(f"wrong bytes in {name}")
PYTHON

prefetched() { status "volume['prefetch']['$1']"; }
told() { status "volume['prefetch']"; }
is_still() { [[ $(status "(node['tiers']['memory']['pinned_frames'], volume['open'])") == "(0, 0)" ]]; }
comes_to_rest() { wait_for 20 "nothing is open or under way" is_still; }
begin() { start_mount "$ORIGIN" "$mnt" "${ORIGIN_OPTIONS[@]}" "$@"; }
epoch() { "$PYTHON" "$MOUNT_TMP/epoch.py" "$mnt/photos" "$tree/photos" "$@" || fail "reading $*"; }
# expect_fetched_once: all of it came from the origin, no byte twice, and at a server in a request a file.
expect_fetched_once() {
  [[ $(status "volume['origin_bytes']") == "$BYTES" ]] ||
    fail "of $BYTES bytes the origin gave $(status "volume['origin_bytes']"): $(told)"
  [[ -n ${LOGGED:-} ]] || return 0
  are_logged() { (($(gets | wc -l) >= FILES)); }
  wait_for 20 "the server's log" are_logged
  [[ $(gets | wc -l) == "$FILES" && $(gets | sort -u | wc -l) == "$FILES" ]] || fail "files were asked for twice: $(gets | wc -l)"
}
gets() { tail -n "+$((LOGGED + 1))" "$MOUNT_TMP/nginx/access" | awk '$6 == "\"GET" && $7 ~ /jpg/ { print $7 }'; }
note_log() { [[ -z ${LOGGED:-} ]] || LOGGED=$(wc -l <"$MOUNT_TMP/nginx/access"); }

shuffled_epochs() {
  local quarter=$((FILES / 4)) rest=$((FILES * 3 / 4)) fetched brought
  note_log
  begin "$@"
  epoch 1 0 "$quarter"
  [[ $(prefetched files) == 0 ]] || fail "before a quarter was opened: $(told)"
  epoch 1 "$quarter" "$FILES"
  comes_to_rest
  fetched=$(prefetched files)
  ((fetched * 10 >= rest * 6)) || fail "of the $rest files behind the first quarter $fetched were fetched ahead: $(told)"
  (($(prefetched files_opened) * 100 >= fetched * 95)) || fail "much was fetched in vain: $(told)"
  (($(prefetched used) * 100 >= $(prefetched origin) * 95 && $(prefetched wasted) == 0)) || fail "wasted: $(told)"
  [[ $(prefetched failed) == 0 ]] || fail "pieces failed: $(told)"
  expect_fetched_once
  say "a shuffled epoch: $(told)"
  brought=$(prefetched origin)
  epoch 2 0 "$FILES"
  comes_to_rest
  [[ $(prefetched files) == "$fetched" && $(prefetched origin) == "$brought" ]] || fail "the second epoch cost: $(told)"
  expect_fetched_once
}

in_memory() {
  shuffled_epochs
  stop_mount "$mnt"
}

# What nobody has opened yet is on disk: after a restart all of it is there without the origin.
on_disk() {
  rm -rf -- "$cache"
  shuffled_epochs --cache-dir="$cache" --cache-size=1GiB
  stop_mount "$mnt"
  note_log
  begin --cache-dir="$cache" --cache-size=1GiB
  epoch 3 0 "$FILES"
  comes_to_rest
  [[ $(status "volume['origin_bytes']") == 0 && $(prefetched files) == 0 ]] ||
    fail "not all of it was on disk: $(status "volume['origin_bytes']") bytes from the origin: $(told)"
  stop_mount "$mnt"
}

a_tenth() {
  local round
  begin
  for round in 1 2 3; do epoch 1 0 $((FILES / 10)); done
  comes_to_rest
  [[ $(prefetched files) == 0 ]] || fail "files were fetched for a reader of a tenth: $(told)"
  stop_mount "$mnt"
}

# He has cost no more than he read, and is not followed again.
one_who_stops() {
  local fetched
  begin -o prefetch.idle_timeout=1s
  epoch 1 0 $((FILES * 3 / 10))
  comes_to_rest
  fetched=$(prefetched files)
  ((fetched > 0 && fetched - $(prefetched files_opened) <= FILES * 3 / 10)) || fail "more waits than was opened: $(told)"
  are_given_up() { (($(prefetched used) + $(prefetched wasted) >= $(prefetched origin))); }
  wait_for 30 "what nobody opened is given up" are_given_up
  epoch 1 $((FILES * 3 / 10)) "$FILES"
  comes_to_rest
  [[ $(prefetched files) == "$fetched" ]] || fail "files were fetched after too many in vain: $(told)"
  (($(status "volume['origin_bytes']") <= BYTES)) || fail "bytes were fetched twice: $(told)"
  say "one who stops: $(told)"
  stop_mount "$mnt"
}

check() {
  in_memory
  on_disk
  a_tenth
  one_who_stops
}
ORIGIN=$tree ORIGIN_OPTIONS=()
with_each_transport check

with_http() {
  local port
  (install_nginx) || return 0
  port=$(free_port)
  start_tree_server "$port" "$tree"
  trap 'kill "$NGINX_PID" 2>/dev/null; wait "$NGINX_PID"' EXIT
  wait_for 20 "nginx" curl -fsS --noproxy '*' -o "$MOUNT_TMP/output" "http://127.0.0.1:$port/"
  say "== HTTP"
  ORIGIN=http://127.0.0.1:$port/ ORIGIN_OPTIONS=() LOGGED=0
  in_memory
  on_disk
}
MODE_CORES=2
MODE_TRANSPORT=$(transports | sed -n 1p)
with_http
