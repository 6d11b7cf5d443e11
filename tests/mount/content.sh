#!/usr/bin/env bash
# The content store: what is put is there under its SHA-256, by HTTP, by command and under a mount; what is refused, cut off,
# killed or damaged is never served and leaves nothing.
TEST_DEADLINE_S=170
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"

MODE_TRANSPORT=dev
cache=$MOUNT_TMP/cache
mnt=$MOUNT_TMP/mnt
in=$MOUNT_TMP/in
mkdir -p "$in"
port=$(free_port)
url=http://127.0.0.1:$port/v1/blobs
GIB=1073741824

start() { # [ARGUMENT...]
  start_mount blobs: "$mnt" --cache-dir="$cache" --cache-size=3GiB -o cache.blobs_reserved=1200MiB "$@"
}
id_of() { sha256sum <"$1" | cut -d' ' -f1; }
blob_file() { printf '%s/blobs/%.2s/%s\n' "$cache" "$1" "$1"; }
staged() { find "$cache/blobs/staging" -type f; }
nothing_staged() { [[ -z $(staged) ]]; }
something_staged() { [[ -n $(staged) ]]; }
blobs() { find "$cache/blobs" -type f | sort; }
http() { curl -sS --noproxy '*' --max-time $((60 * MOUNT_TIME_FACTOR)) "$@"; }
http_status() { # STATUS ARGUMENT...: the body goes to output, the head to head
  local wanted=$1 got
  shift
  got=$(http -o "$MOUNT_TMP/output" -D "$MOUNT_TMP/head" -w '%{http_code}' "$@") || true
  [[ $got == "$wanted" ]] || fail "HTTP status $got instead of $wanted from: $* ($(<"$MOUNT_TMP/output"))"
}
has_field() { grep -qi "^$1: $2"$'\r' "$MOUNT_TMP/head" || fail "no '$1: $2' in: $(<"$MOUNT_TMP/head")"; }
flip() { # FILE OFFSET
  "$PYTHON" -c 'import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2])); b = f.read(1)[0]; f.seek(-1, 1); f.write(bytes([b ^ 4]))' "$1" "$2"
}

start -o http.listen="127.0.0.1:$port"

# Every size, in by one door and out by all.
for bytes in 0 1 65535 65536 65537 1000000; do
  file=$in/$bytes
  head -c "$bytes" /dev/urandom >"$file"
  id=$(id_of "$file")
  expect_status 1 "$BLOBCACHE" has --node="$mnt" "$id"
  if ((bytes % 2)); then
    http_status 201 -T "$file" "$url"
    [[ $(<"$MOUNT_TMP/output") == "$id" ]] || fail "PUT answered $(<"$MOUNT_TMP/output")"
    expect_status 0 "$BLOBCACHE" put --node="$mnt" "$file"
  else
    expect_status 0 "$BLOBCACHE" put --node="$mnt" "$file"
    http_status 200 -X PUT -H 'Transfer-Encoding: chunked' --data-binary "@$file" "$url"
  fi
  [[ $(<"$MOUNT_TMP/output") == "$id" ]] || fail "the second put answered $(<"$MOUNT_TMP/output")"
  expect_status 0 "$BLOBCACHE" has --node="$mnt" "$id"
  "$BLOBCACHE" get --node="$mnt" "$id" | cmp -- - "$file"
  http "$url/$id" | cmp -- - "$file"
  wait_for 10 "blob of $bytes bytes under the mount" test -f "$mnt/$id"
  cmp -- "$mnt/$id" "$file"
  [[ $(stat -c '%s %a' "$mnt/$id") == "$bytes 444" ]] || fail "stat under the mount"
done
[[ $(blobs | wc -l) == 6 ]] || fail "six blobs are $(blobs | wc -l) files"
[[ $(ls "$mnt" | wc -l) == 6 ]] || fail "the mount lists $(ls "$mnt" | wc -l) blobs"

# Parts, and what is known without its bytes.
id=$(id_of "$in/1000000")
http_status 206 -r 65000-70000 "$url/$id"
head -c 70001 "$in/1000000" | tail -c 5001 | cmp -- - "$MOUNT_TMP/output"
has_field Content-Range 'bytes 65000-70000/1000000'
http_status 206 -r -17 "$url/$id"
tail -c 17 "$in/1000000" | cmp -- - "$MOUNT_TMP/output"
http_status 206 -r 999999-2000000 "$url/$id"
has_field Content-Length 1
http_status 416 -r 1000000- "$url/$id"
has_field Content-Range 'bytes \*/1000000'
http_status 200 -I "$url/$id"
has_field Content-Length 1000000
has_field ETag "\"$id\""
"$BLOBCACHE" get --node="$mnt" "$id" --range=65000-70000 | cmp -- - <(head -c 70001 "$in/1000000" | tail -c 5001)
"$BLOBCACHE" get --node="$mnt" "$id" --range=999999- | cmp -- - <(tail -c 1 "$in/1000000")
expect_refusal 1 'outside' "$BLOBCACHE" get --node="$mnt" "$id" --range=1000000-
expect_status 0 "$BLOBCACHE" get --node="$mnt" "$id" --output="$MOUNT_TMP/out"
cmp -- "$MOUNT_TMP/out" "$in/1000000"

# Refused, and nothing is kept.
none=$(printf '%064d' 7)
before=$(blobs)
expect_refusal 2 '64 hex digits' "$BLOBCACHE" get --node="$mnt" "../../etc/passwd"
expect_refusal 2 '64 hex digits' "$BLOBCACHE" has --node="$mnt" "${id:1}"
expect_refusal 2 '64 hex digits' "$BLOBCACHE" put --node="$mnt" --id=x "$in/1"
expect_refusal 2 'range' "$BLOBCACHE" get --node="$mnt" "$id" --range=9-3
expect_refusal 2 'ttl' "$BLOBCACHE" put --node="$mnt" --ttl=tomorrow "$in/1"
expect_refusal 1 'no such blob' "$BLOBCACHE" get --node="$mnt" "$none"
expect_refusal 1 'not those of the id' "$BLOBCACHE" put --node="$mnt" --id="$none" "$in/1"
expect_refusal 1 'cannot be read' "$BLOBCACHE" put --node="$mnt" "$in"
expect_refusal 1 'no node' "$BLOBCACHE" has "$id" --node=nobody
http_status 400 "$url/..%2f..%2fetc"
http_status 400 "$url/${id}0"
http_status 404 "$url/$none"
http_status 405 -X POST --data x "$url"
http_status 400 -T "$in/1" -H 'Blobcache-TTL: soon' "$url"
http_status 400 -T "$in/1" -H 'Blobcache-Expect: 1234' "$url"
http_status 422 -T "$in/1" -H "Blobcache-Expect: $none" "$url"
[[ ! -e $mnt/$none && ! -e $mnt/${id^^} && ! -e $mnt/notes ]] || fail "a name that is none is under the mount"
[[ $(blobs) == "$before" ]] || fail "something refused was kept: $(blobs)"
nothing_staged || fail "something refused stays staged: $(staged)"

# A life: the time it has, a pin, an end by command.
id=$("$BLOBCACHE" put --node="$mnt" --ttl=1s - <<<"short")
wait_for 20 "a blob of one second to go" test ! -e "$(blob_file "$id")"
expect_status 1 "$BLOBCACHE" has --node="$mnt" "$id"
id=$("$BLOBCACHE" put --node="$mnt" --pin - <<<"pinned")
expect_refusal 1 'pinned' "$BLOBCACHE" remove --node="$mnt" "$id"
http_status 409 -X DELETE "$url/$id"
expect_status 0 "$BLOBCACHE" remove --node="$mnt" --pinned "$id"
expect_refusal 1 'no such blob' "$BLOBCACHE" remove --node="$mnt" "$id"
id=$("$BLOBCACHE" put --node="$mnt" - <<<"to be deleted")
http_status 200 -X DELETE "$url/$id"
http_status 404 "$url/$id"

# Eight at once, of which two are the same, and a gigabyte.
for i in 1 2 3 4 5 6 7; do head -c 9000000 /dev/urandom >"$in/many$i"; done
cp "$in/many7" "$in/many8"
jobs=()
for i in 1 2 3 4 5 6 7 8; do
  if ((i % 2)); then http -T "$in/many$i" "$url" >"$in/many$i.id" & else "$BLOBCACHE" put --node="$mnt" "$in/many$i" >"$in/many$i.id" & fi
  jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
for i in 1 2 3 4 5 6 7 8; do
  [[ $(<"$in/many$i.id") == "$(id_of "$in/many$i")" ]] || fail "upload $i of eight answered $(<"$in/many$i.id")"
  cmp -- "$mnt/$(<"$in/many$i.id")" "$in/many$i"
done
[[ $(blobs | wc -l) == 13 ]] || fail "7 and 6 blobs are $(blobs | wc -l) files"
truncate -s "$GIB" "$in/big"
id=$(id_of "$in/big")
http_status 201 -T "$in/big" -H 'Expect:' "$url"
[[ $(<"$MOUNT_TMP/output") == "$id" ]] || fail "a gigabyte answered $(<"$MOUNT_TMP/output")"
"$BLOBCACHE" get --node="$mnt" "$id" | cmp -- - "$in/big"
http "$url/$id" | cmp -- - "$in/big"

# No room: told before a byte is sent, and on the way when the size was not known; both times nothing stays.
before=$(blobs)
truncate -s 300M "$in/over"
printf x >>"$in/over"
http_status 507 -T "$in/over" "$url"
grep -q 'cache.blobs_reserved' "$MOUNT_TMP/output" || fail "507 says: $(<"$MOUNT_TMP/output")"
expect_refusal 1 'no room for it.*cache.blobs_reserved' "$BLOBCACHE" put --node="$mnt" "$in/over"
expect_refusal 1 'no room for it' bash -c 'cat "$1" | "$2" put --node="$3" -' - "$in/over" "$BLOBCACHE" "$mnt"
[[ $(blobs) == "$before" ]] || fail "what had no room was kept"
expect_status 0 "$BLOBCACHE" remove --node="$mnt" "$id"
expect_status 0 "$BLOBCACHE" put --node="$mnt" "$in/over"
expect_status 0 "$BLOBCACHE" remove --node="$mnt" "$(id_of "$in/over")"

# A byte that changed on disk: refused by every door, set aside, said with its name, and stored again.
for door in http cut get mount; do
  head -c 300000 /dev/urandom >"$in/damaged"
  id=$("$BLOBCACHE" put --node="$mnt" "$in/damaged")
  case $door in
    http)
      flip "$(blob_file "$id")" 200000
      http_status 500 "$url/$id"
      ;;
    cut) # behind what has gone out already: the answer must not look whole
      flip "$(blob_file "$id")" 290000
      expect_status 18 curl -sS --noproxy '*' -o "$MOUNT_TMP/cut" "$url/$id"
      cmp -s -n 262144 -- "$MOUNT_TMP/cut" "$in/damaged" || fail "what came before the damage is wrong"
      ;;
    get)
      flip "$(blob_file "$id")" 299999
      expect_refusal 1 'damaged' "$BLOBCACHE" get --node="$mnt" "$id" --output="$MOUNT_TMP/damaged-out"
      [[ ! -e $MOUNT_TMP/damaged-out ]] || fail "get left a file"
      ;;
    mount)
      flip "$(blob_file "$id")" 0
      expect_status 1 cat "$mnt/$id"
      grep -q 'Input/output error' "$MOUNT_TMP/error" || fail "the mount says: $(<"$MOUNT_TMP/error")"
      ;;
  esac
  expect_status 1 "$BLOBCACHE" has --node="$mnt" "$id"
  http_status 404 "$url/$id"
  [[ -e $cache/blobs/aside/$id ]] || fail "it was not set aside"
  expect_status 0 "$BLOBCACHE" put --node="$mnt" "$in/damaged"
  http "$url/$id" | cmp -- - "$in/damaged"
  [[ ! -e $cache/blobs/aside/$id ]] || fail "what was set aside stays"
done

# Who is killed in the middle leaves nothing: first the client, then the node.
mkfifo "$in/pipe"
before=$(blobs)
feed() { # keeps the pipe open behind its bytes
  exec {pipe}>"$in/pipe"
  head -c 5000000 /dev/zero >&"$pipe"
  head -c 700 /dev/urandom >&"$pipe"
}
"$BLOBCACHE" put --node="$mnt" - <"$in/pipe" >/dev/null 2>"$MOUNT_TMP/error" &
client=$!
feed
wait_for 20 "an upload on its way" something_staged
kill -9 "$client"
wait_for 20 "the end of what a killed client had sent" nothing_staged
exec {pipe}>&-
wait "$client" 2>/dev/null || true
"$BLOBCACHE" put --node="$mnt" - <"$in/pipe" >/dev/null 2>"$MOUNT_TMP/error" &
client=$!
feed
wait_for 20 "an upload on its way" something_staged
kill -9 "$DAEMON_PID"
wait_gone 20 "$DAEMON_PID"
! wait "$client" || fail "put was told of a success by a killed node"
exec {pipe}>&-
something_staged || fail "nothing was staged when the node was killed"
start # and no port
nothing_staged || fail "what was staged stays: $(staged)"
[[ $(blobs) == "$before" ]] || fail "the kill left something, or took something: $(blobs)"
for i in 1 7; do "$BLOBCACHE" get --node="$mnt" "$(<"$in/many$i.id")" | cmp -- - "$in/many$i"; done
expect_status 0 "$BLOBCACHE" put --node="$mnt" "$in/big" # the room of the upload that was cut off came back
before=$(blobs)

# A node that is told to end waits for no upload, and takes what was staged with it.
"$BLOBCACHE" put --node="$mnt" - <"$in/pipe" >/dev/null 2>"$MOUNT_TMP/error" &
client=$!
feed
wait_for 20 "an upload on its way" something_staged
kill -TERM "$DAEMON_PID"
wait_gone 20 "$DAEMON_PID"
! wait "$client" || fail "put was told of a success by a node that ended"
exec {pipe}>&-
nothing_staged || fail "an orderly end leaves something staged: $(staged)"
no_crash

# Without a share there is no store, and it says so.
mkdir -p "$MOUNT_TMP/tree"
start_mount "$MOUNT_TMP/tree" "$mnt" --cache-dir="$cache" --cache-size=3GiB -o http.listen="127.0.0.1:$port"
expect_refusal 1 'no content store.*cache.blobs_reserved' "$BLOBCACHE" put --node="$mnt" "$in/1"
http_status 507 -T "$in/1" "$url"
stop_mount "$mnt"
expect_refusal 1 'no room.*cache.blobs_reserved' "$BLOBCACHE" mount blobs: "$mnt" --cache-dir="$cache" --memory="$MOUNT_MEMORY"
[[ $(blobs) == "$before" ]] || fail "blobs were taken by a node without a share"
