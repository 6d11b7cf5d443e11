#!/usr/bin/env bash
# A web server's tree as a directory: nginx with its listings as JSON and as HTML; and servers that cannot be shown, each with
# one clear sentence.
TEST_DEADLINE_S=180
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
tree=$MOUNT_TMP/tree

start_nginx() {
  JSON_PORT=$(free_port)
  HTML_PORT=$(free_port)
  PLAIN_PORT=$(free_port)
  nginx_conf <<CONF
  server {
    listen 127.0.0.1:$JSON_PORT;
    location /data/ { alias $tree/; autoindex on; autoindex_format json; }
    location /locked/ { return 401; }
  }
  server {
    listen 127.0.0.1:$HTML_PORT;
    location / { root $tree; autoindex on; }
  }
  server {
    listen 127.0.0.1:$PLAIN_PORT;
    root $tree;
    location / { autoindex on; autoindex_format json; max_ranges 0; }
    location /anonymous/ { alias $tree/sizes/; etag off; add_header Last-Modified ""; }
  }
CONF
  run_nginx
  trap 'kill "$NGINX_PID" 2>/dev/null; wait "$NGINX_PID"' EXIT
  wait_for 20 "nginx" curl -fsS --noproxy '*' -o /dev/null "http://127.0.0.1:$JSON_PORT/data/"
}

make_tree() {
  "$PYTHON" - "$tree" <<'PYTHON'
import os, random, sys
root = sys.argv[1]
numbers = random.Random(5)
def write(name, size):
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(numbers.randbytes(size))
    os.utime(path, (1_700_000_000, 1_700_000_000))
for size in (0, 1, 65536, 65537, 9 * 1024 * 1024 + 5):
    write(f"sizes/{size}", size)
for number in range(300):
    write(f"many/name-{number}", number % 5)
for name in ("ü 漢字", "a+b=c&d", "%41", "#?;@", "quote'<>", "~-_.", "deep/er/still", "a:b"):
    write(f"odd/{name}", 50)
PYTHON
}

check() {
  local source
  for source in "http://127.0.0.1:$JSON_PORT/data/" "http://127.0.0.1:$HTML_PORT"; do
    start_mount "$source" "$mnt" -o volume.revalidate=0s
    expect_same_bytes "$tree" "$mnt"
    [[ $(stat -c %Y "$mnt/sizes/1") == 1700000000 ]] || fail "mtime"
    [[ ! -e $mnt/none && ! -e $mnt/sizes/none ]] || fail "names that are not there"
    stop_mount "$mnt"
  done
}

check_change() {
  start_mount "http://127.0.0.1:$JSON_PORT/data/" "$mnt" -o volume.revalidate=0s
  printf 'one' >"$tree/changing"
  wait_for 20 "the new file" test -e "$mnt/changing"
  [[ $(<"$mnt/changing") == one ]] || fail "the first version"
  printf 'two!' >"$tree/changing.new"
  mv "$tree/changing.new" "$tree/changing"
  has_changed() { [[ $(<"$mnt/changing") == 'two!' ]]; }
  wait_for 20 "the second version" has_changed
  rm "$tree/changing"
  stop_mount "$mnt"
}

check_refusals() {
  expect_refusal 1 'cannot reach http://127.0.0.1' "$BLOBCACHE" mount "http://127.0.0.1:$(free_port)/" "$mnt"
  expect_refusal 1 'nothing at' "$BLOBCACHE" mount "http://127.0.0.1:$JSON_PORT/none/" "$mnt"
  expect_refusal 1 'asks for a password' "$BLOBCACHE" mount "http://127.0.0.1:$JSON_PORT/locked/" "$mnt"
  expect_refusal 1 'user name and password' "$BLOBCACHE" mount "http://me:secret@127.0.0.1:$JSON_PORT/data/" "$mnt"
  is_unmounted "$mnt" || fail "a refused mount is there"
  # A server without ranges: whole small files, and nothing wrong of larger ones.
  start_mount "http://127.0.0.1:$PLAIN_PORT/" "$mnt" -o "log.file=$MOUNT_TMP/daemon.log"
  cmp "$mnt/sizes/65536" "$tree/sizes/65536" || fail "a whole file from a server without ranges"
  ! dd if="$mnt/sizes/9437189" of=/dev/null bs=4096 skip=1000 count=1 iflag=direct 2>/dev/null || fail "a part of a file"
  grep -q "ignores ranges" "$MOUNT_TMP"/*.log || fail "the log does not say that ranges are ignored"
  stop_mount "$mnt"
  # Files without ETag and Last-Modified.
  start_mount "http://127.0.0.1:$PLAIN_PORT/anonymous/" "$mnt" -o "log.file=$MOUNT_TMP/daemon.log"
  ! cat "$mnt/1" >/dev/null 2>&1 || fail "a file without a version was shown"
  grep -q "no ETag\|ETag and no Last-Modified" "$MOUNT_TMP"/*.log || fail "the log does not say what is missing"
  stop_mount "$mnt"
}

install_nginx
make_tree
start_nginx
mkdir -p "$mnt"
with_each_transport check
MODE_TRANSPORT=dev
check_change
check_refusals
