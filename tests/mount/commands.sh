#!/usr/bin/env bash
# What commands print: --json is what its schema says, for every command that has it, and on terminals of 80 and 200 columns
# no line of status, stat, doctor and warm is wider than the terminal (top has a test of its own).
TEST_DEADLINE_S=120
source "$(dirname -- "$0")/disk_lib.sh"

MODE_TRANSPORT=$(first_transport)
mkdir -p "$source_dir/folder"
head -c 3000000 /dev/urandom >"$source_dir/folder/file"
head -c 1000 /dev/urandom >"$source_dir/small"
: >"$MOUNT_TMP/empty.toml"
wait_for 10 "settled files" is_settled "$source_dir/small"
start_mount "$source_dir" "$mnt" --cache-dir="$cache" --cache-size=200MiB -o cache.blobs_reserved=32MiB
"$PYTHON" "$MOUNT_TESTS/commands.py" "$BLOBCACHE" "$mnt" "$MOUNT_TMP/empty.toml" || fail "what the commands print"
stop_mount "$mnt"
