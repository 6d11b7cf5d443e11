#!/usr/bin/env bash
# Bits that turn on the way from the server: of objects that come as a whole and have a checksum in the store (here: their
# ETag) each is found, counted and fetched again, and the reader gets the right bytes. One that stays wrong is an error and a
# line in the log, never its bytes.
TEST_DEADLINE_S=160
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
tree=$MOUNT_TMP/tree
objects=60

# read_object NUMBER: by one request, which is what makes it come as a whole; MOUNT_TMP/copy.
read_object() { dd if="$mnt/$1" of="$MOUNT_TMP/copy" bs=1M count=1 iflag=direct status=none 2>"$MOUNT_TMP/error"; }

read_all() { # FIRST LAST
  local number
  for ((number = $1; number <= $2; ++number)); do
    read_object "$number" || fail "the read of $number: $(<"$MOUNT_TMP/error")"
    cmp "$MOUNT_TMP/copy" "$tree/$number" || fail "wrong bytes in $number"
  done
}

check() {
  local turned
  faults ""
  start_mount s3://blobs "$mnt" "${PROXIED[@]}" "$@"
  read_all 1 5 # from here on it is known that an ETag is an MD5
  [[ $(origin_status 'origin["verified"] == 5 and origin["corrupt"] == 0') == True ]] || fail "$(origin_status origin)"
  faults "flip=3"
  read_all 6 "$((objects - 1))"
  turned=$(count faults)
  say "$turned answers had a bit turned: $(origin_status origin)"
  ((turned >= 15)) || fail "only $turned answers had a bit turned: nothing was tested"
  [[ $(origin_status "origin['corrupt'] == $turned and origin['retries'] == $turned") == True ]] ||
    fail "$turned bits turned, but: $(origin_status origin)"
  [[ $(origin_status "origin['verified'] == $objects - 1 and origin['errors'] == 0") == True ]] ||
    fail "not every object was verified: $(origin_status origin)"
  # Always wrong: no bytes of it, and words.
  faults "flip=1"
  ! read_object "$objects" || fail "an object that is always wrong was read"
  [[ ! -s $MOUNT_TMP/copy ]] || fail "bytes of an object that is wrong"
  grep -q "reading '$objects' of s3://blobs.*checksum (MD5)" "$DAEMON_LOG" || fail "no line of the log tells of it"
  faults ""
  read_all "$objects" "$objects"
  stop_mount "$mnt"
}

start_s3
start_proxy "${S3_ENDPOINT##*:}"
PROXIED=("${S3_OPTIONS[@]:2}" -o "volume.s3.endpoint=http://127.0.0.1:$PROXY_PORT" -o volume.revalidate=never
  -o prefetch.enabled=false -o origin.retries=2)
mkdir -p "$tree"
# What comes as a whole (docs/S3.md): a block at most, or more than 256 KiB of one request.
for ((number = 1; number <= objects; ++number)); do
  bytes=$((number * 1600 + 1))
  ((bytes <= 65536)) || bytes=$((number * 17000 + 1))
  head -c "$bytes" /dev/urandom >"$tree/$number"
done
s3 tree blobs '' "$tree"
with_each_transport check
