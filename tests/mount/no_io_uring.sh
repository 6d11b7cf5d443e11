#!/usr/bin/env bash
# Without io_uring: a refusal that names the cause and the remedy, exit 3. Both ways to be without: the sysctl
# kernel.io_uring_disabled, and a container's seccomp filter that answers EPERM or ENOSYS.
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
disabled=/proc/sys/kernel/io_uring_disabled
mkdir -p "$source_dir" "$mnt"
mapfile -t options < <(mode_options)

# A seccomp filter for one system call, then the command. 425 is io_uring_setup on every architecture.
cat >"$MOUNT_TMP/filter.py" <<'PYTHON'
import ctypes, os, struct, sys
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
program = b"".join(struct.pack("HBBI", *step) for step in (
    (0x20, 0, 0, 0),                          # load the number of the call
    (0x15, 0, 1, 425),                        # io_uring_setup?
    (0x06, 0, 0, ERRNO | int(sys.argv[1])),   # then this errno
    (0x06, 0, 0, ALLOW)))
buffer = ctypes.create_string_buffer(program)
header = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0):
    sys.exit("seccomp: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
PYTHON

for errno in 1 38; do
  expect_refusal 3 "io_uring.*(seccomp|container)" "$PYTHON" "$MOUNT_TMP/filter.py" "$errno" \
    "$BLOBCACHE" mount "$source_dir" "$mnt" "${options[@]}"
  is_unmounted "$mnt" || fail "a refused mount left a mount"
done

if [[ ! -w $disabled ]]; then
  not_tested "kernel.io_uring_disabled=2" "this kernel has no such sysctl (Linux 6.6 has)"
else
  # For the time of one command: everything else on the machine is without io_uring too.
  before=$(<"$disabled")
  set_setting "$disabled" 2
  expect_refusal 3 "io_uring_disabled" "$BLOBCACHE" mount "$source_dir" "$mnt" "${options[@]}"
  echo "$before" >"$disabled"
  is_unmounted "$mnt" || fail "a refused mount left a mount"
fi

start_mount "$source_dir" "$mnt"
stop_mount "$mnt"
