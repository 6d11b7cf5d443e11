#!/usr/bin/env bash
# Other mount tests with everything, their cache directory first of all, on a file system of its own in an image: ext4
# with its defaults, and xfs.
#   disk_loop_fs.sh ext4|xfs [--cached TEST[:ARGUMENTS]...] [--plain TEST[:ARGUMENTS]...]
# --plain: the test as it is, its source too. --cached: every mount of the test gets an empty cache directory; what the test
# says of memory must then hold with a disk below it too. Arguments are separated by spaces.
TEST_DEADLINE_S=3500
source "$(dirname -- "$0")/disk_lib.sh"

type=$1
shift
command -v "mkfs.$type" >/dev/null || fail "mkfs.$type is missing: packaging/install-deps.sh test installs it"
truncate -s 20G "$MOUNT_TMP/image"
case $type in
  ext4) mkfs.ext4 -q -F "$MOUNT_TMP/image" ;;
  xfs) mkfs.xfs -q -f "$MOUNT_TMP/image" ;;
  *) fail "no file system of type $type" ;;
esac
# Beside the test's own folder: names of sockets within have room for 107 bytes.
fs=$(mktemp -d "${TMPDIR:-/tmp}/fsXXX")
trap 'umount -l "$fs" 2>/dev/null || true; rmdir "$fs"' EXIT
mount -o loop,noatime "$MOUNT_TMP/image" "$fs"
chmod 755 "$fs" # some tests are somebody else

# The tests take their options from a function of lib.sh; in a copy of their folder it says one thing more.
cp -r "$MOUNT_TESTS" "$MOUNT_TMP/cached_tests"
cp -r "$MOUNT_TESTS/../harness" "$MOUNT_TMP/harness" # what they look for beside themselves
cat >>"$MOUNT_TMP/cached_tests/lib.sh" <<'SHELL'
mode_options() {
  printf '%s\n' "--memory=$MOUNT_MEMORY" -o "fuse.transport=$MODE_TRANSPORT" -o "node.cores=$MODE_CORES" \
    "--cache-dir=$(mktemp -d "$MOUNT_TMP/cache-XXXXXX")" --cache-size=2GiB
}
SHELL

folder=$MOUNT_TESTS passed=0
for each in "$@"; do
  case $each in
    --cached) folder=$MOUNT_TMP/cached_tests && continue ;;
    --plain) folder=$MOUNT_TESTS && continue ;;
  esac
  name=${each%%:*}
  arguments=()
  [[ $each == "$name" ]] || read -ra arguments <<<"${each#*:}"
  say "== $type: $name ${arguments[*]}"
  status=0
  # A test of its own, with its own guard, in a folder on the image; it is ended when this one is.
  env -u MOUNT_TMP TMPDIR="$fs" setpriv --pdeathsig TERM bash "$folder/$name.sh" "${arguments[@]}" \
    >"$MOUNT_TMP/inner.out" 2>&1 || status=$?
  if [[ $status != 0 ]]; then
    cat "$MOUNT_TMP/inner.out" >&2
    fail "$name on $type ended with $status"
  fi
  grep 'not tested' "$MOUNT_TMP/inner.out" >&2 || true
  passed=$((passed + 1))
done
((passed > 0)) || fail "no test was named"
say "$passed tests passed on $type"
umount "$fs"
