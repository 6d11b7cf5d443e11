#!/usr/bin/env bash
# The page at /: a real Chromium shows what /v1/status says, whatever the names are; it asks nobody but the node, says so when
# the node is gone, and asks for the token where there is one. Its screenshots lie in ARTEFACTS.
TEST_DEADLINE_S=150
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"

chromium=$(command -v chromium || command -v chromium-browser || true)
mnt=$MOUNT_TMP/mnt
tree=$MOUNT_TMP/source
port=$(free_port)
url=http://127.0.0.1:$port
token=0123456789abcdef0123
artefacts=${ARTEFACTS:-$MOUNT_TMP/artefacts}
# What would be markup, quotes that would end an attribute, and letters beyond ASCII.
name='<img src=x onerror="window.hit=1">'\''мод&egrave;ль é'
mkdir -p "$tree"
head -c $((4 << 20)) /dev/urandom >"$tree/file"
for i in {0..7}; do head -c $(((i % 3 + 1) << 20)) /dev/urandom >"$tree/shard-$i"; done
head -c 100000 /dev/urandom >"$tree/"$'<b onclick=x>\xe9 \xd0\xb6\nline\xff'
wait_for 10 "settled files" is_settled "$tree/file"

ask() { curl -sS --noproxy '*' --max-time 20 "$@"; }
expect_status_of() { # STATUS CURL-ARGUMENT...
  local wanted=$1 got
  shift
  got=$(ask -o "$MOUNT_TMP/answer" -D "$MOUNT_TMP/head" -w '%{http_code}' "$@")
  [[ $got == "$wanted" ]] || fail "$got instead of $wanted for: $*"
}
expect_field() { grep -qiE "^$1: *$2"$'\r?$' "$MOUNT_TMP/head" || fail "no field $1: $2 in: $(<"$MOUNT_TMP/head")"; }

# $1, $2 ...: more options.
start() {
  start_mount "$tree" "$mnt" --cache-dir="$MOUNT_TMP/cache" --cache-size=100MiB -o "volume.name=$name" \
    -o prefetch.enabled=false -o fuse.passthrough=off -o log.slow_request=1ns "$@"
}

# By itself, without a browser.
served() {
  expect_status_of 200 -H 'Accept: image/png' "$url/?anything"
  expect_field content-type 'text/html; charset=utf-8'
  expect_field cache-control 'no-store'
  expect_field x-content-type-options nosniff
  expect_field referrer-policy no-referrer
  expect_field content-security-policy "default-src 'none';.* frame-ancestors 'none'"
  ! grep -i '^content-security-policy' "$MOUNT_TMP/head" | grep -qE "unsafe|\*|http" || fail "the policy lets others in"
  ! grep -qE '(src|href)="?(https?:)?//' "$MOUNT_TMP/answer" || fail "the page names something elsewhere"
  local bytes
  bytes=$(stat -c %s "$MOUNT_TMP/answer")
  expect_status_of 200 -I "$url/"
  expect_field content-length "$bytes"
  expect_status_of 405 -X POST --data-binary x "$url/"
  expect_status_of 404 "$url/index.html"
  expect_status_of 404 "$url//"
  expect_field x-content-type-options nosniff
  expect_status_of 200 "$url/v1/status"
  expect_field x-content-type-options nosniff
}

drive() { # STEP ARGUMENT...
  "$PYTHON" "$MOUNT_TESTS/web_page.py" "$chromium" "$url" "$@" || fail "the page: $1"
}

MODE_CORES=1
MODE_TRANSPORT=$(first_transport)
start -o "http.listen=127.0.0.1:$port"
served
if [[ -n $chromium ]]; then
  # It says by files when the node shall end, and when there shall be one again.
  drive shows "$mnt" "$tree" "$name" "$artefacts" "$MOUNT_TMP" &
  driver=$!
  is_wanted() { [[ -e $MOUNT_TMP/$1 ]] || is_gone "$driver"; }
  await_wish() { # FILE
    wait_for 100 "the wish: $1" is_wanted "$1"
    [[ -e $MOUNT_TMP/$1 ]] || fail "the page (above)"
  }
  await_wish node-may-end
  stop_mount "$mnt"
  await_wish node-may-start
  start -o "http.listen=127.0.0.1:$port"
  wait "$driver" || fail "the page (above)"
else
  not_tested "what the page shows" "chromium is not installed"
fi
stop_mount "$mnt"

# Beyond loopback: the page tells nothing of the node, so it is there without the token, and nothing else is.
printf '%s\n' "$token" >"$MOUNT_TMP/token"
start -o "http.listen=0.0.0.0:$port" -o "http.secret_file=$MOUNT_TMP/token"
expect_status_of 200 "$url/"
! grep -qF -e "$token" -e "$mnt" "$MOUNT_TMP/answer" || fail "the page tells of the node"
expect_status_of 401 "$url/v1/status"
expect_status_of 401 "$url/healthz"
expect_status_of 401 "$url/index.html"
# Names are JSON whatever bytes they are of.
cat "$mnt/<b"* >/dev/null
ask -H "Authorization: Bearer $token" "$url/v1/status" >"$MOUNT_TMP/status"
"$PYTHON" - "$MOUNT_TMP/status" "$name" <<'PYTHON' || fail "the names in the status"
import json, sys
with open(sys.argv[1], encoding="utf-8") as file:
    volume = json.load(file)["volumes"][0]
assert volume["name"] == sys.argv[2], ascii(volume["name"])
files = {slow["file"] for slow in volume["slow"]}
assert "<b onclick=x>\u00e9 \u0436\nline\u00ff" in files, ascii(files)
PYTHON
if [[ -n $chromium ]]; then
  drive token "$token" "$name" "$artefacts"
fi
stop_mount "$mnt"
