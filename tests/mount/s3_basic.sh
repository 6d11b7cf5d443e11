#!/usr/bin/env bash
# A bucket of a real S3 server as a directory: names, bytes, pages of listings, replaced objects, TLS, and one clear sentence
# for everything that can be wrong with where and who.
TEST_DEADLINE_S=240
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
tree=$MOUNT_TMP/tree

make_tree() {
  "$PYTHON" - "$tree" <<'PYTHON'
import os, random, sys
root = os.fsencode(sys.argv[1])
numbers = random.Random(4)

def write(name, size):
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(numbers.randbytes(size))

for size in (0, 1, 65535, 65536, 65537, 4 * 1024 * 1024 + 1, 20 * 1024 * 1024 + 4097):
    write(b"sizes/%d" % size, size)
for number in range(1100):
    write(b"many/name-%04d" % number, number % 7)
for name in ("ü 漢字", "a+b=c&d", "%41", "#?;:@", "line\nbreak", "quote\"'<>", "~-_.", "n" * 255, " "):
    write(os.fsencode("odd/" + name + "/" + name), 100)
# Between "x" and "x/": what a look-up that takes the next name for the directory would trip over.
for name in (b"x-1", b"x.txt", b"x/inside", b"x0"):
    write(b"conflict/" + name, 10)
PYTHON
}

check() {
  start_mount s3://blobs/tree "$mnt" "${S3_OPTIONS[@]}"
  expect_same_bytes "$tree" "$mnt"
  [[ $(find "$mnt/many" -type f | wc -l) == 1100 ]] || fail "a listing of two pages"
  [[ $(stat -c %a:%u "$mnt/sizes/0") == 444:0 ]] || fail "modes: $(stat -c %a:%u "$mnt/sizes/0")"
  [[ ! -e $mnt/none && ! -e $mnt/conflict/x- ]] || fail "names that are not there"
  # Sparse reads of a file that nothing has been read of.
  s3 put blobs tree/fresh "$tree/sizes/20975617"
  cmp <(dd if="$mnt/fresh" bs=4096 skip=1000 count=3 status=none) \
    <(dd if="$tree/sizes/20975617" bs=4096 skip=1000 count=3 status=none) || fail "a range"
  s3 put blobs tree/fresh "$tree/sizes/65537"
  wait_for 20 "the replaced object" cmp -s "$mnt/fresh" "$tree/sizes/65537"
  s3 delete blobs tree/fresh
  wait_for 20 "the end of the deleted object" test ! -e "$mnt/fresh"
  stop_mount "$mnt"
}

check_hidden() {
  local key
  for key in 'h//x' 'h/./x' 'h/../x' h/ h/good h h/dir/x; do s3 put blobs "hidden/$key" "$tree/sizes/1"; done
  start_mount s3://blobs/hidden "$mnt" "${S3_OPTIONS[@]}"
  [[ $(cd "$mnt" && find . | sort | tr '\n' ' ') == ". ./h ./h/dir ./h/dir/x ./h/good " ]] ||
    fail "hidden keys: $(cd "$mnt" && find . | sort | tr '\n' ' ')"
  stop_mount "$mnt"
  grep -q "cannot be shown as files" "$DAEMON_LOG" || fail "hidden keys are not told of"
}

check_tls() {
  local tls=(-o "volume.s3.endpoint=$S3_ENDPOINT_TLS" -o "volume.s3.credentials=$MOUNT_TMP/keys"
    -o "log.file=$DAEMON_LOG")
  start_mount s3://blobs/tree "$mnt" "${tls[@]}" -o "volume.s3.ca_file=$S3_CA_FILE"
  cmp "$mnt/sizes/4194305" "$tree/sizes/4194305" || fail "bytes over TLS"
  stop_mount "$mnt"
  expect_refusal 1 'cannot reach .*certificate' "$BLOBCACHE" mount s3://blobs/tree "$mnt" "${tls[@]}"
}

check_environment() {
  AWS_ACCESS_KEY_ID=$S3_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$S3_SECRET_KEY AWS_ENDPOINT_URL=$S3_ENDPOINT \
    start_mount s3://blobs/tree "$mnt" -o log.level=debug -o "log.file=$DAEMON_LOG"
  cmp "$mnt/sizes/65537" "$tree/sizes/65537" || fail "bytes with keys of the environment"
  ! grep -qF "$S3_SECRET_KEY" "$MOUNT_TMP"/*.log || fail "the secret is in a log"
  stop_mount "$mnt"
}

check_refusals() {
  local wrong=$MOUNT_TMP/wrong
  sed 's/secret_access_key = ./&x/' "$MOUNT_TMP/keys" >"$wrong"
  expect_refusal 1 'access key or its secret is wrong' "$BLOBCACHE" mount s3://blobs "$mnt" "${S3_OPTIONS[@]:0:2}" \
    -o "volume.s3.credentials=$wrong"
  expect_refusal 1 'no bucket no-such-bucket' "$BLOBCACHE" mount s3://no-such-bucket "$mnt" "${S3_OPTIONS[@]}"
  expect_refusal 1 'nothing under s3://blobs/none' "$BLOBCACHE" mount s3://blobs/none "$mnt" "${S3_OPTIONS[@]}"
  expect_refusal 1 'no credentials were found' env HOME="$MOUNT_TMP/none" AWS_EC2_METADATA_DISABLED=true \
    "$BLOBCACHE" mount s3://blobs "$mnt" "${S3_OPTIONS[@]:0:2}"
  expect_refusal 1 'credentials file .* cannot be read' "$BLOBCACHE" mount s3://blobs "$mnt" "${S3_OPTIONS[@]:0:2}" \
    -o "volume.s3.credentials=$MOUNT_TMP/none"
  expect_refusal 1 'cannot reach 127.0.0.1' "$BLOBCACHE" mount s3://blobs "$mnt" \
    -o "volume.s3.endpoint=http://127.0.0.1:$(free_port)" -o "volume.s3.credentials=$MOUNT_TMP/keys"
  is_unmounted "$mnt" || fail "a refused mount is there"
}

make_tree
start_s3
s3 tree blobs tree/ "$tree"
mkdir -p "$mnt"
check_refusals
with_each_transport check
MODE_TRANSPORT=dev
check_hidden
check_tls
check_environment
