#!/usr/bin/env bash
# Ten thousand callers at once, most of whom say nothing, some a byte at a time: whoever has something to ask is answered, the
# mount goes on, the memory stays within its plan, and nothing is left of them afterwards. And callers who do not take what they
# asked for keep their places only while nobody else wants them.
TEST_DEADLINE_S=140
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
port=$(free_port)
mkdir -p "$MOUNT_TMP/source"
head -c 20000000 /dev/urandom >"$MOUNT_TMP/source/file"
wait_for 10 "a settled file" is_settled "$MOUNT_TMP/source/file"
MODE_CORES=$(($(nproc) > 1 ? 2 : 1))
MODE_TRANSPORT=$(first_transport)
start_mount "$MOUNT_TMP/source" "$mnt" -o "http.listen=127.0.0.1:$port"
cmp "$MOUNT_TMP/source/file" "$mnt/file" || fail "bytes"
"$PYTHON" "$MOUNT_TESTS/http_crowd.py" "$port" "$DAEMON_PID" "$mnt/file" "$MOUNT_TMP/source/file" "${MOUNT_MEMORY%MiB}" ||
  fail "the crowd was noticed"
# All that they had is given back.
has_no_callers() { [[ $(ss -Htn state established "sport = :$port" 2>/dev/null | wc -l) == 0 ]]; }
if command -v ss >/dev/null; then wait_for 20 "the end of the last connection" has_no_callers; fi
stop_mount "$mnt"
