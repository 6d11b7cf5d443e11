#!/usr/bin/env bash
# `report`: one file for its owner alone, with what a person who helps needs; a daemon that hangs costs seconds and is named; what
# cannot be done is one sentence, and nothing is left behind.
TEST_DEADLINE_S=80
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
work=$MOUNT_TMP/work
token=a-token-that-nobody-may-read-$RANDOM
mkdir -p "$MOUNT_TMP/source" "$mnt" "$work/tmp"
echo hello >"$MOUNT_TMP/source/file"
echo "$token" >"$MOUNT_TMP/token"
port=$(free_port)
cat >"$MOUNT_TMP/config.toml" <<TOML
[node]
name = "report-$$"
cores = 1
[memory]
limit = "384MiB"
[http]
listen = "127.0.0.1:$port"
secret_file = "$MOUNT_TMP/token"
[[volume]]
name = "one"
source = "$MOUNT_TMP/source"
mountpoint = "$mnt"
TOML
"$BLOBCACHE" run --config="$MOUNT_TMP/config.toml" >"$MOUNT_TMP/run.log" 2>&1 &
daemon=$!
trap '{ kill -CONT "$daemon" && kill "$daemon"; } 2>/dev/null || true' EXIT
wait_for 20 "the mount" is_mounted "$mnt"
wait_for 20 "its bytes" cmp -s "$MOUNT_TMP/source/file" "$mnt/file"
scrapes() { curl -fsS --noproxy '*' -H "Authorization: Bearer $token" "http://127.0.0.1:$port/metrics" >"$MOUNT_TMP/metrics"; }
wait_for 20 "the metrics" scrapes

export TMPDIR=$work/tmp
cd "$work"
# report NAME ARGUMENT...: makes it, unpacks it into NAME.
report() {
  local name=$1 top
  shift
  expect_status 0 "$BLOBCACHE" report --config="$MOUNT_TMP/config.toml" "$@"
  local made
  made=$(<"$MOUNT_TMP/output")
  [[ $(stat -c %a "$made") == 600 ]] || fail "others may read $made"
  rm -rf "$name"
  mkdir "$name"
  tar -C "$name" -xzf "$made"
  top=$(echo "$name"/*)
  mv "$top" "$name/all"
  rm "$made"
  [[ -z $(ls "$TMPDIR") ]] || fail "left behind: $(ls "$TMPDIR")"
}

report whole --output=named.tar.gz
"$PYTHON" - whole/all "$daemon" <<'PYTHON' || fail "$(find whole -type f)"
import json, os, sys
top, pid = sys.argv[1:]
read = lambda name: open(os.path.join(top, name)).read()
version = json.loads(read("version.json"))
assert version["version"] and "io_uring" in version["features"], version
assert f'name = "report-' in read("config.toml")
assert "blobcache_build_info" in read("metrics.txt")
statuses = [json.loads(read(f"{folder}/status.json")) for folder in os.listdir(top)
            if folder.startswith("daemon-") and "status.json" in os.listdir(os.path.join(top, folder))]
assert any(status["pid"] == int(pid) for status in statuses), statuses
contents = read("CONTENTS")
names = [os.path.relpath(os.path.join(folder, name), top) for folder, _, files in os.walk(top) for name in files]
assert all(name == "CONTENTS" or f" {name}\n" in contents for name in names), contents
assert "io_uring" in read("machine/checks.txt")
PYTHON
! grep -rqF -- "$token" whole || fail "the token is in the report"

# Without a name it goes into this folder.
report default
[[ $(grep -c . "$MOUNT_TMP/output") == 1 ]] || fail "more than the file's name: $(<"$MOUNT_TMP/output")"

kill -STOP "$daemon"
wait_for 5 "the daemon is stopped" state_is "$daemon" T
started=$SECONDS
report hung --output=hung.tar.gz
((SECONDS - started <= 25 * MOUNT_TIME_FACTOR)) || fail "a hung daemon cost $((SECONDS - started)) s"
grep -qE '^missing daemon-.*status.json: the daemon does not answer' hung/all/CONTENTS || fail "$(<hung/all/CONTENTS)"
kill -CONT "$daemon"

expect_refusal 1 'cannot be written.*--output' "$BLOBCACHE" report --output=/nowhere/report.tar.gz
expect_refusal 2 'not expected' "$BLOBCACHE" report --outputs=x
expect_refusal 3 'tar' env PATH=/nowhere "$BLOBCACHE" report --output=none.tar.gz
[[ -z $(ls "$TMPDIR") ]] || fail "left behind: $(ls "$TMPDIR")"
kill "$daemon"
wait "$daemon" || fail "the daemon ended with $?"
