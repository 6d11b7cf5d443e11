#!/usr/bin/env bash
# The HTTP endpoint: what it answers, what it refuses, and that idle, slow and greedy callers neither keep others out nor
# disturb the mount.
TEST_DEADLINE_S=100
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
port=$(free_port)
url=http://127.0.0.1:$port
mkdir -p "$MOUNT_TMP/source"
head -c 3000000 /dev/urandom >"$MOUNT_TMP/source/file"
ask() { curl -sS --noproxy '*' --max-time 20 "$@"; }
status_of() { ask -o "$MOUNT_TMP/answer" -w '%{http_code}' "$@"; }
expect_http() { # STATUS PATTERN CURL-ARGUMENT...
  local wanted=$1 pattern=$2 got
  shift 2
  got=$(status_of "$@")
  [[ $got == "$wanted" ]] || fail "$got instead of $wanted for: $*"
  grep -qE -- "$pattern" "$MOUNT_TMP/answer" || fail "the answer does not say /$pattern/: $(<"$MOUNT_TMP/answer")"
}

# raw: what the server says to bytes of our own making; the rest of the arguments are sent one after the other.
raw() {
  "$PYTHON" - "$port" "$@" <<'PYTHON'
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as link:
    for part in sys.argv[2:]:
        link.sendall(part.encode().decode("unicode_escape").encode("latin-1"))
    link.shutdown(socket.SHUT_WR)
    answer = b"".join(iter(lambda: link.recv(65536), b""))
sys.stdout.write(answer.decode("latin-1"))
PYTHON
}

answers() {
  expect_http 200 '^ok$' "$url/healthz"
  expect_http 200 '^ready$' "$url/readyz"
  expect_http 200 '^blobcache_build_info\{version="[0-9.]+"\} 1$' "$url/metrics"
  expect_http 200 '"volumes":\[' "$url/v1/status?pretty"
  "$PYTHON" -c 'import json, sys; json.load(open(sys.argv[1]))' "$MOUNT_TMP/answer" || fail "the status is no JSON"
  expect_http 404 'nothing here' "$url/v1/nonsense"
  expect_http 405 'only be read' -X POST --data-binary "@$MOUNT_TMP/source/file" "$url/metrics"
  expect_http 405 'only be read' -X DELETE "$url/healthz"
  [[ $(ask -I "$url/metrics" | grep -ic '^content-length: [1-9]') == 1 ]] || fail "HEAD tells no length"
  # Several requests on one connection, one after the other and at once.
  [[ $(ask "$url/healthz" "$url/readyz" "$url/healthz" -w '%{num_connects}\n' | tr '\n' ' ') == "ok 1 ready 0 ok 0 " ]] ||
    fail "a connection is not kept"
  [[ $(raw 'GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' |
    grep -c '^HTTP/1.1 200 OK') == 2 ]] || fail "of two requests at once not both were answered"
  # In pieces.
  raw 'GE' 'T /hea' 'lthz HTTP/1.1\r' '\nHost: localhost\r\n' 'Connection: close\r\n\r\n' | grep -q '^ok' || fail "a request in pieces"
  raw 'GET /healthz HTTP/1.0\r\n\r\n' | grep -q '^Connection: close' || fail "HTTP/1.0 is kept open"
}

refuses() {
  raw 'this is no request\r\n\r\n' | grep -q '^HTTP/1.1 400 ' || fail "nonsense"
  raw "GET / HTTP/1.1\\r\\nX: $(printf 'x%.0s' {1..9000})\\r\\n\\r\\n" | grep -q '^HTTP/1.1 431 ' || fail "an endless head"
  raw 'GET /healthz HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n' | grep -q '^HTTP/1.1 400 ' ||
    fail "two lengths of one body"
  raw 'POST /healthz HTTP/1.1\r\nContent-Length: -1\r\n\r\n' | grep -q '^HTTP/1.1 400 ' || fail "a negative length"
  # A page from elsewhere whose name was made to lead here.
  local name
  for name in rebound.example "rebound.example:$port" 127.0.0.1.rebound.example localhost.rebound.example '[::2]'; do
    expect_http 421 'no other name' -H "Host: $name" "$url/v1/status"
  done
  for name in "localhost:$port" 127.0.0.1 "127.8.9.10:$port" '[::1]' "[::1]:$port"; do
    expect_http 200 '"volumes"' -H "Host: $name" "$url/v1/status"
  done
}

# Four times as many callers as there are places: those that say nothing make room for who does, and the mount goes on.
crowd() {
  "$PYTHON" - "$port" "$MOUNT_TMP/crowd" "$mnt/file" <<'PYTHON' || fail "the crowd kept somebody out"
import os, socket, sys, time, urllib.request
port, ready, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
links = []
for i in range(512):
    link = socket.create_connection(("127.0.0.1", port), timeout=20)
    if i % 2:
        link.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: ")
    links.append(link)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for page in ("healthz", "readyz", "metrics", "v1/status"):
    with opener.open(f"http://127.0.0.1:{port}/{page}", timeout=20) as answer:
        assert answer.status == 200, answer.status
with open(path, "rb") as file:
    assert len(file.read()) == os.stat(path).st_size
# Who still has a place and does not finish his request is shown out within the time for a head.
begun = time.monotonic()
for link in links:
    link.settimeout(20)
    try:
        assert link.recv(1) == b"", "an unfinished request was answered"
    except ConnectionResetError:
        pass
assert time.monotonic() - begun < 20
PYTHON
}

check() {
  start_mount "$MOUNT_TMP/source" "$mnt" -o "http.listen=127.0.0.1:$port"
  answers
  refuses
  crowd
  cmp "$MOUNT_TMP/source/file" "$mnt/file" || fail "bytes"
  # The port belongs to the daemon: another one says so and does not start.
  mkdir -p "$MOUNT_TMP/other"
  expect_refusal 1 "cannot listen on http.listen = 127.0.0.1:$port" \
    "$BLOBCACHE" mount "$MOUNT_TMP/source" "$MOUNT_TMP/other" --memory=64MiB -o "http.listen=127.0.0.1:$port"
  is_unmounted "$MOUNT_TMP/other" || fail "mounted all the same"
  # Not ready any more while it drains: a reader keeps the volume busy.
  exec {held}<"$mnt/file"
  kill -TERM "$DAEMON_PID"
  is_draining() { [[ $(status_of "$url/readyz") == 503 ]]; }
  wait_for 10 "503 while draining" is_draining
  exec {held}<&-
  wait_gone 20 "$DAEMON_PID"
  no_crash
}

# Beyond this machine only with a token.
check_token() {
  local options=(-o "http.listen=0.0.0.0:$port")
  local refused=("$BLOBCACHE" mount "$MOUNT_TMP/source" "$MOUNT_TMP/other" --memory=64MiB "${options[@]}")
  expect_refusal 2 'http.secret_file' "${refused[@]}"
  printf 'short\n' >"$MOUNT_TMP/token"
  expect_refusal 1 'no token of at least 16' "${refused[@]}" \
    -o "http.secret_file=$MOUNT_TMP/token"
  printf '0123456789abcdef0123\n' >"$MOUNT_TMP/token"
  start_mount "$MOUNT_TMP/source" "$mnt" "${options[@]}" -o "http.secret_file=$MOUNT_TMP/token"
  expect_http 401 'bearer token' "$url/metrics"
  expect_http 401 'bearer token' -H 'Authorization: Bearer 0123456789abcdef012' "$url/metrics"
  expect_http 401 'bearer token' -H 'Authorization: Basic 0123456789abcdef0123' "$url/v1/nonsense"
  expect_http 200 'build_info' -H 'Authorization: Bearer 0123456789abcdef0123' "$url/metrics"
  ! grep -q 0123456789abcdef "$MOUNT_TMP"/*.log || fail "the token is in a log"
  stop_mount "$mnt"
}

MODE_CORES=2
if (($(nproc) < 2)); then MODE_CORES=1; fi
MODE_TRANSPORT=$(first_transport)
check
check_token
