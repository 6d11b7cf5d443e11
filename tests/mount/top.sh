#!/usr/bin/env bash
# top: what it shows of a known read, on terminals of 80 and 200 columns, as plain text and as JSON; that no line is wider than
# the terminal, that it follows one that is made smaller, and that it gives the screen back however it ends.
TEST_DEADLINE_S=80
source "$(dirname -- "$0")/lib.sh"

mnt=$MOUNT_TMP/mnt
mkdir -p "$MOUNT_TMP/source"
head -c $((4 << 20)) /dev/urandom >"$MOUNT_TMP/source/file"
wait_for 10 "a settled file" is_settled "$MOUNT_TMP/source/file"
MODE_TRANSPORT=$(first_transport)
# Everything that waits at all is a slow request here.
start_mount "$MOUNT_TMP/source" "$mnt" --cache-dir="$MOUNT_TMP/cache" --cache-size=100MiB -o prefetch.enabled=false \
  -o fuse.passthrough=off -o log.slow_request=1ns

socket=/run/blobcache/$("$PYTHON" -c 'import sys; print(sys.argv[1].strip("/").replace("-", r"\x2d").replace("/", "-"))' "$mnt").sock
[[ -S $socket ]] || fail "the daemon's socket is not at $socket"
"$PYTHON" "$MOUNT_TESTS/top.py" "$BLOBCACHE" "$socket" "$mnt/file" || fail "what top shows"

expect_status 0 "$BLOBCACHE" top --help
grep -q '^  blobcache top --interval=5s$' "$MOUNT_TMP/output" || fail "the help has no example"
expect_refusal 2 'json.*once' "$BLOBCACHE" top "--node=$mnt" --json
expect_refusal 2 '100ms to 1h' "$BLOBCACHE" top "--node=$mnt" --once --interval=1ms
expect_refusal 2 '100ms to 1h' "$BLOBCACHE" top "--node=$mnt" --once --interval=2h
expect_refusal 2 'interval=soon' "$BLOBCACHE" top "--node=$mnt" --once --interval=soon
expect_refusal 2 'help' "$BLOBCACHE" top --sometimes
expect_refusal 2 'help' "$BLOBCACHE" top something
expect_refusal 1 'no node .*nonsense' "$BLOBCACHE" top --node=nonsense --once
stop_mount "$mnt"
