#!/usr/bin/env bash
# A request that takes longer than log.slow_request is a line in the log that says how long, and where the time went; one that
# does not is none. The line, and those of failures, carry the number of the request.
TEST_DEADLINE_S=60
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"

tree=$MOUNT_TMP/tree
mnt=$MOUNT_TMP/mnt
log=$MOUNT_TMP/daemon.log
mkdir -p "$tree/sub"
head -c 3000000 /dev/urandom >"$tree/sub/file"
head -c 3000000 /dev/urandom >"$tree/broken"
install_nginx
port=$(free_port)
start_tree_server "$port" "$tree"
server=$NGINX_PID
trap 'kill "$server" "$PROXY_PID" 2>/dev/null || true' EXIT
start_proxy "$port"
wait_for 20 "the web server" faults ''

# slow_lines OPERATION: the numbers of its lines: request offset bytes total_ms room_ms disk_ms peer_ms origin_ms.
slow_lines() {
  "$PYTHON" - "$log" "$1" <<'PYTHON'
import json, sys
for line in open(sys.argv[1]):
    event = json.loads(line)
    if "slow " + sys.argv[2] in event["message"]:
        print(*(event.get(name, "-") for name in ("request", "offset", "bytes", "total_ms", "room_ms", "disk_ms",
                                                  "peer_ms", "origin_ms")))
PYTHON
}

has_lines() { [[ $(slow_lines "$1" | wc -l) -ge $2 ]]; }

check() {
  rm -f "$log"
  start_mount "http://127.0.0.1:$PROXY_PORT/" "$mnt" -o "log.file=$log" -o log.format=json -o log.slow_request=400ms \
    -o prefetch.enabled=false -o fuse.read_ahead=0 -o origin.retries=0 -o origin.attempt_timeout=2s
  # Quick: no line.
  head -c 65536 "$mnt/sub/file" | cmp -n 65536 - "$tree/sub/file" || fail "the first block"
  # Slow, two readers of one block: whoever loads it and whoever waits for it are told the same.
  faults 'latency_ms=800'
  local reader readers=()
  for _ in 1 2; do
    dd if="$mnt/sub/file" bs=4096 skip=512 count=1 iflag=direct status=none >"$MOUNT_TMP/read" &
    readers+=($!)
  done
  for reader in "${readers[@]}"; do wait "$reader" || fail "a slow read"; done
  faults ''
  wait_for 10 "the lines of slow reads" has_lines read 2
  dd if="$mnt/sub/file" bs=4096 skip=512 count=1 iflag=direct status=none >"$MOUNT_TMP/read" # a hit now
  cmp <(dd if="$tree/sub/file" bs=4096 skip=512 count=1 status=none) "$MOUNT_TMP/read" || fail "the bytes"
  local line request offset bytes total room disk peer origin seen=' '
  while read -r request offset bytes total room disk peer origin; do
    say "slow: $request $offset $bytes $total $room $disk $peer $origin"
    ((total >= 750 && total < 5000)) || fail "the read took 800 ms, the line says $total"
    ((origin >= 700 && origin <= total && disk == 0 && peer == 0 && room < 200)) || fail "it was the origin: $origin of $total"
    ((offset == 512 * 4096 && bytes == 4096)) || fail "bytes $bytes at $offset"
    [[ $seen != *" $request "* ]] || fail "two requests of number $request"
    seen+="$request "
  done < <(slow_lines read)
  [[ $(slow_lines read | wc -l) == 2 ]] || fail "lines of quick reads: $(slow_lines read)"
  grep -qF "slow read of 'sub/file'" "$log" || fail "the line does not name the file"
  # A failure names the request that got it.
  faults 'hang=1'
  ! dd if="$mnt/broken" bs=4096 count=1 iflag=direct status=none >"$MOUNT_TMP/read" 2>&1 || fail "a read without an answer"
  faults ''
  "$PYTHON" - "$log" <<'PYTHON' || fail "the failure's lines: $(tail -n 5 "$log")"
import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
failures = [event for event in events if "'broken'" in event["message"]]
sys.exit(not failures or any("request" not in event for event in failures) or
         len({event["request"] for event in failures}) != 1)
PYTHON
  stop_mount "$mnt"
}
with_each_transport check
