#!/usr/bin/env bash
# A web server without listings, and a manifest that tells what it has: names, sizes, times and bytes, opens that ask nobody,
# a manifest that is replaced, and one clear sentence for those that cannot be used.
TEST_DEADLINE_S=90
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
tree=$MOUNT_TMP/tree

start_nginx() {
  PORT=$(free_port)
  URL=http://127.0.0.1:$PORT/
  nginx_conf <<CONF
  server { listen 127.0.0.1:$PORT; root $tree; }
CONF
  run_nginx
  trap 'kill "$NGINX_PID" 2>/dev/null; wait "$NGINX_PID"' EXIT
  wait_for 20 "nginx" curl -fsS --noproxy '*' -o /dev/null "${URL}manifest"
}

# nginx's ETag is the time and the size in hexadecimal. Every third file comes without.
write_manifest() {
  "$PYTHON" - "$tree" <<'PYTHON'
import json, os, sys
root = sys.argv[1]
lines = []
for folder, _, names in os.walk(root):
    for name in names:
        path = os.path.join(folder, name)
        if os.path.relpath(path, root).startswith(("manifest", "bad")):
            continue
        status = os.stat(path)
        line = {"path": os.path.relpath(path, root), "size": status.st_size, "mtime": int(status.st_mtime)}
        if len(lines) % 3:
            line["etag"] = '"%x-%x"' % (int(status.st_mtime), status.st_size)
        lines.append(json.dumps(line, ensure_ascii=len(lines) % 2 == 0))
with open(root + "/manifest.new", "w") as file:
    file.write("\n".join(reversed(lines)))
os.rename(root + "/manifest.new", root + "/manifest")
PYTHON
}

make_tree() {
  "$PYTHON" - "$tree" <<'PYTHON'
import os, random, sys
numbers = random.Random(8)
for name, size in [("one", 1), ("none", 0), ("deep/er/still", 70000), ("ü 漢字/a+b", 50), ("deep-er", 5), ("big", 5 << 20)] + [
        (f"many/{number}", number) for number in range(1500)]:
    path = os.path.join(sys.argv[1], name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(numbers.randbytes(size))
    os.utime(path, (1_700_000_000, 1_700_000_000))
PYTHON
}

requests() { grep -c . "$MOUNT_TMP/nginx/access" || true; }

check() {
  local before
  start_mount "$URL" "$mnt" -o volume.http.manifest=manifest -o volume.revalidate=never
  rm -rf "$MOUNT_TMP/wanted"
  cp -a "$tree" "$MOUNT_TMP/wanted"
  rm -f "$MOUNT_TMP"/wanted/{manifest,bad}
  expect_same_bytes "$MOUNT_TMP/wanted" "$mnt"
  [[ $(stat -c %Y "$mnt/one") == 1700000000 ]] || fail "mtime"
  [[ ! -e $mnt/manifest && ! -e $mnt/many/x && ! -e $mnt/one/x && ! -e $mnt/man ]] || fail "names that are not there"
  stop_mount "$mnt"
  start_mount "$URL" "$mnt" -o volume.http.manifest=manifest -o volume.revalidate=never
  before=$(requests)
  [[ $(find "$mnt" | wc -l) == 1511 ]] || fail "$(find "$mnt" | wc -l) names"
  [[ ! -e $mnt/none-such ]] || fail "a name that is not there"
  (($(requests) == before)) || fail "names cost $(($(requests) - before)) requests"
  stop_mount "$mnt"
}

check_change() {
  start_mount "$URL" "$mnt" -o volume.http.manifest=manifest -o volume.revalidate=1s -o "log.file=$MOUNT_TMP/daemon.log"
  printf new >"$tree/late"
  touch -d @1700000005 "$tree/late"
  write_manifest
  wait_for 40 "the file of the new manifest" cmp -s "$mnt/late" "$tree/late"
  stop_mount "$mnt"
}

check_refusals() {
  local mount=("$BLOBCACHE" mount "$URL" "$mnt" -o volume.http.manifest=bad)
  rm -f "$tree/bad"
  expect_refusal 1 'manifest .*/bad cannot be fetched: .*404' "${mount[@]}"
  printf '<html>' >"$tree/bad"
  expect_refusal 1 'line 1 is no JSON object' "${mount[@]}"
  printf '{"path": "ok", "size": 1}\n{"path": "../../etc/passwd", "size": 1}\n' >"$tree/bad"
  expect_refusal 1 'line 2 has the path' "${mount[@]}"
  truncate -s 17M "$tree/bad"
  expect_refusal 1 'longer than' "${mount[@]}"
  is_unmounted "$mnt" || fail "a refused mount is there"
}

install_nginx
make_tree
write_manifest
start_nginx
mkdir -p "$mnt"
with_each_transport check
MODE_TRANSPORT=dev
check_change
check_refusals
