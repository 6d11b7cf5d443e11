#!/usr/bin/env bash
# 64 files of 1 GiB read cold at once from a web server: the daemon keeps to its memory (VmHWM and huge pages within 1.05 of
# --memory), and no byte is wrong. The files are sparse, and each reader stops after READ_MIB.
TEST_DEADLINE_S=170
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
tree=$MOUNT_TMP/tree
limit_mib=320
READ_MIB=${READ_MIB:-24}
MOUNT_MEMORY=${limit_mib}MiB

start_nginx() {
  local port
  port=$(free_port)
  nginx_conf <<CONF
  sendfile on;
  server { listen 127.0.0.1:$port; root $tree; autoindex on; autoindex_format json; }
CONF
  run_nginx
  trap 'kill "$NGINX_PID" 2>/dev/null; wait "$NGINX_PID"' EXIT
  URL=http://127.0.0.1:$port/
  wait_for 20 "nginx" curl -fsS --noproxy '*' -o /dev/null "$URL"
}

# The number of the file at every 16 MiB, so that a byte of another file or place shows.
make_tree() {
  "$PYTHON" - "$tree" <<'PYTHON'
import os, sys
os.makedirs(sys.argv[1])
for number in range(64):
    path = os.path.join(sys.argv[1], str(number))
    with open(path, "wb") as file:
        for offset in range(0, 1 << 30, 16 << 20):
            file.seek(offset)
            file.write(b"%d at %d" % (number, offset))
        file.truncate(1 << 30)
    os.utime(path, (1_700_000_000, 1_700_000_000))
PYTHON
}

check() {
  local number readers=()
  start_mount "$URL" "$mnt"
  for ((number = 0; number < 64; ++number)); do
    cmp -n $((READ_MIB << 20)) "$tree/$number" "$mnt/$number" &
    readers+=($!)
  done
  for number in "${!readers[@]}"; do wait "${readers[number]}" || fail "file $number has wrong bytes"; done
  expect_peak_within "$limit_mib"
  stop_mount "$mnt"
}

install_nginx
make_tree
start_nginx
mkdir -p "$mnt"
with_each_transport check
