# shellcheck shell=bash
# What every mount test stands on. A script says its deadline, sources this file, and is started again under guard.py,
# which gives it a folder of its own (MOUNT_TMP), a clean environment and the deadline, and which ends every process
# and mount of the test afterwards, also when the test is killed.
#
# Takes from the environment: BLOBCACHE (the binary, required), MOUNT_PROBE (the built probe.cc; built here when absent),
# MOUNT_MEMORY (the daemons' memory limit), MOUNT_TRANSPORTS ("uring dev"), MOUNT_TIME_FACTOR (a whole number by which
# every deadline grows; more than 1 also says that the binary is one under sanitizers).
#
# Exit: 0 passed, 77 nothing could be tested (says why), anything else failed. What could not be tested is always said
# on a line "not tested: WHAT: WHY".
set -eEuo pipefail

MOUNT_TESTS=$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")
if [[ -z ${MOUNT_TMP:-} ]]; then
  exec python3 "$MOUNT_TESTS/guard.py" "${TEST_DEADLINE_S:-60}" "$(realpath -- "$0")" "$@"
fi

MOUNT_MEMORY=${MOUNT_MEMORY:-512MiB}
MOUNT_TRANSPORTS=${MOUNT_TRANSPORTS:-uring dev}
ENABLE_URING=/sys/module/fuse/parameters/enable_uring
MOUNT_TIME_FACTOR=${MOUNT_TIME_FACTOR:-1}
MODE_TRANSPORT=dev # the mode that with_each_mode is in
MODE_CORES=1
mount_count=0
exec {never_fd}<> <(:) # a pipe that nothing is written to

say() { printf '%s\n' "$*" >&2; }

show_logs() {
  local log
  for log in "$MOUNT_TMP"/*.log; do
    [[ -s $log ]] || continue
    say "--- ${log##*/} (its end)"
    tail -n 40 -- "$log" >&2
  done
}

fail() {
  trap - ERR
  say "FAIL: $* (transport=$MODE_TRANSPORT cores=$MODE_CORES)"
  show_logs
  exit 1
}
trap 'fail "${BASH_SOURCE[0]##*/}:$LINENO: $(head -n 1 <<<"$BASH_COMMAND")"' ERR

not_tested() { say "not tested: $1: $2"; }

nothing_tested() {
  not_tested "$1" "$2"
  exit 77
}

[[ -x ${BLOBCACHE:-} ]] || fail "BLOBCACHE must name the built binary"
[[ $EUID -eq 0 ]] || nothing_tested "${0##*/}" "the mount tests make owners, devices and mounts: run them as root"

# The binary may lie where only its owner may go; the tests run it as other users too.
if [[ -z ${MOUNT_PROBE:-} ]]; then
  MOUNT_PROBE=$MOUNT_TMP/probe
  ${CXX:-g++} -std=c++20 -O2 -pthread -o "$MOUNT_PROBE" "$MOUNT_TESTS/probe.cc"
fi

# set_setting PATH VALUE: changes a setting of the machine; guard.py puts the old one back at the end.
set_setting() {
  local path=$1 value=$2 old
  old=$(<"$path")
  [[ $old != "$value" ]] || return 0
  printf '%s\t%s\n' "$path" "$old" >>"$MOUNT_TMP/restore"
  printf '%s' "$value" >"$path"
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds; fails the test when it does not in time.
wait_for() {
  local seconds=$(($1 * MOUNT_TIME_FACTOR)) what=$2 deadline
  shift 2
  deadline=$((SECONDS + seconds))
  until "$@"; do
    ((SECONDS <= deadline)) || fail "waited $seconds s in vain: $what"
    read -rt 0.02 -u "$never_fd" || true # between two looks; the deadline above is what counts
  done
}

# is_settled FILE: its last change is more than a second ago, so that what is read of it may be kept.
is_settled() {
  local changed now=${EPOCHREALTIME/[.,]/}
  changed=$(stat -c %.6Z "$1")
  ((now - ${changed/[.,]/} > 1100000))
}

# wait_gone SECONDS PID...: until none of the processes exists (a zombie does not count as existing).
wait_gone() {
  local seconds=$1 pid
  shift
  for pid in "$@"; do
    wait_for "$seconds" "the end of process $pid ($(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || true))" is_gone "$pid"
  done
}

is_gone() {
  local state
  state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || true
  [[ -z $state || $state == Z || $state == X ]]
}

# state_is PID LETTER: the process is in that scheduler state (D, S, T ...).
state_is() {
  local state
  state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || true
  [[ $state == "$2" ]]
}

is_mounted() { grep -qF -- " $1 " /proc/self/mountinfo; }
is_unmounted() { ! is_mounted "$1"; }

# daemon_pid MOUNTPOINT: the daemon keeps its command line, and the mount point is below this test's own folder.
daemon_pid() {
  local mountpoint=$1 directory
  for directory in /proc/[0-9]*; do
    if [[ $directory/exe -ef $BLOBCACHE ]] &&
      ! is_gone "${directory#/proc/}" &&
      tr '\0\n' '\n ' 2>/dev/null <"$directory/cmdline" | grep -qxF -- "$mountpoint"; then
      printf '%s\n' "${directory#/proc/}"
      return 0
    fi
  done
  return 1
}

# mode_options: the options that put a mount into the mode under test.
mode_options() {
  printf '%s\n' "--memory=$MOUNT_MEMORY" -o "fuse.transport=$MODE_TRANSPORT" -o "node.cores=$MODE_CORES"
}

# start_mount SOURCE MOUNTPOINT [ARGUMENT...]: mounts in the mode under test; DAEMON_PID is the daemon, MOUNT_LOG its log.
start_mount() {
  local source=$1 mountpoint=$2 options
  shift 2
  mapfile -t options < <(mode_options)
  mkdir -p -- "$mountpoint"
  mount_count=$((mount_count + 1))
  MOUNT_LOG=$MOUNT_TMP/mount-$mount_count.log
  timeout $((30 * MOUNT_TIME_FACTOR)) "$BLOBCACHE" mount "$source" "$mountpoint" "${options[@]}" "$@" >"$MOUNT_LOG" 2>&1 ||
    fail "mount of $source ended with $?"
  is_mounted "$mountpoint" || fail "mount returned, but $mountpoint is not mounted"
  # What is tested must be what was asked for: a fallback would pass in the other's place.
  grep -q "transport $MODE_TRANSPORT" "$MOUNT_LOG" || fail "the mount does not say that its transport is $MODE_TRANSPORT"
  DAEMON_PID=$(daemon_pid "$mountpoint") || fail "no daemon for $mountpoint"
}

# peak_mib: the most that the daemon held so far; huge pages are counted apart by the kernel, and never peak lower.
peak_mib() {
  awk '/^(VmHWM|HugetlbPages):/ { sum += $2 } END { print int(sum / 1024) }' "/proc/$DAEMON_PID/status"
}

# expect_peak_within MIB: what `memory.limit` promises, and a twentieth.
expect_peak_within() {
  local peak
  peak=$(peak_mib)
  say "peak $peak MiB of $1 MiB"
  if ((MOUNT_TIME_FACTOR > 1)); then
    not_tested "the peak of memory" "a sanitizer's own memory counts in it"
  elif ((peak > $1 * 105 / 100)); then
    fail "the daemon used $peak MiB of $1 MiB"
  fi
}

# other_holders MOUNTPOINT: what was started in a mount namespace of its own while the mount was there has a copy of it,
# which keeps the daemon. Named, because it looks like a daemon that hangs.
other_holders() {
  local file
  for file in $(grep -lF -- " $1 " /proc/[0-9]*/mountinfo 2>/dev/null || true); do
    file=${file#/proc/}
    printf ' %s' "${file%/mountinfo}"
  done
}

# stop_mount MOUNTPOINT: unmounts in order and waits for the daemon's end; its log must show no crash.
stop_mount() {
  local mountpoint=$1 pid
  pid=$(daemon_pid "$mountpoint") || fail "no daemon for $mountpoint: it died during the test"
  timeout $((20 * MOUNT_TIME_FACTOR)) "$BLOBCACHE" umount "$mountpoint" >>"$MOUNT_TMP/umount.log" 2>&1 || fail "umount ended with $?"
  is_unmounted "$mountpoint" || fail "umount returned 0, but $mountpoint is still mounted"
  wait_for 20 "the end of the daemon $pid; the mount is also in the namespaces of these:$(other_holders "$mountpoint")" is_gone "$pid"
  no_crash
}

# no_crash: no daemon wrote about a failed assertion or a sanitizer's finding.
no_crash() {
  ! grep -E 'ERROR: [A-Za-z]*Sanitizer|WARNING: ThreadSanitizer|runtime error:|[Aa]ssert(ion)? .*failed' \
    "$MOUNT_TMP"/*.log >&2 || fail "a daemon crashed"
}

# transports: those of MOUNT_TRANSPORTS that this machine can do; says which it cannot.
transports() {
  local transport able=()
  for transport in $MOUNT_TRANSPORTS; do
    if [[ $transport != uring ]]; then
      able+=("$transport")
    elif [[ ! -e $ENABLE_URING ]]; then
      not_tested "transport uring" "this kernel's fuse has no $ENABLE_URING (Linux 6.14 has)"
    elif ! (set_setting "$ENABLE_URING" Y) 2>/dev/null && [[ $(<"$ENABLE_URING") != Y ]]; then
      not_tested "transport uring" "$ENABLE_URING cannot be switched on here"
    else
      able+=("$transport")
    fi
  done
  printf '%s\n' "${able[@]}"
}

# The first of them. Not by head, which may end the other line's writer by SIGPIPE, and the test with it.
first_transport() {
  local list
  list=$(transports)
  printf '%s\n' "${list%%$'\n'*}"
}

# with_each_mode FUNCTION: once for every transport with 1 and 2 cores; under sanitizers uring with 2 and dev with 1, since
# each takes several times as long there and the code is the same.
with_each_mode() {
  with_modes "1 2" "$1"
}

# with_each_transport FUNCTION: once for every transport, where the number of cores does not matter.
with_each_transport() {
  with_modes 2 "$1"
}

with_modes() {
  local counts=$1 function=$2 list cores
  list=$(transports)
  for MODE_TRANSPORT in $list; do
    if ((MOUNT_TIME_FACTOR > 1)) && [[ $counts == *' '* ]]; then
      if [[ $MODE_TRANSPORT == uring ]]; then counts='2 '; else counts='1 '; fi
    fi
    for cores in $counts; do
      if ((cores > $(nproc))); then
        not_tested "$cores cores" "this machine has $(nproc)"
        cores=1
      fi
      MODE_CORES=$cores
      say "== transport=$MODE_TRANSPORT cores=$MODE_CORES"
      "$function"
    done
  done
}

# expect_same DIRECTORY DIRECTORY: names, types, bytes, modes, owners, times, links and inode sharing.
expect_same() {
  "$PYTHON" "$MOUNT_TESTS/tree_manifest.py" "$1" >"$MOUNT_TMP/manifest.a"
  expect_manifest "$MOUNT_TMP/manifest.a" "$2"
}

# expect_manifest MANIFEST DIRECTORY: the same against a manifest taken before.
expect_manifest() {
  "$PYTHON" "$MOUNT_TESTS/tree_manifest.py" --check-inodes "$2" >"$MOUNT_TMP/manifest.b"
  cmp -s -- "$1" "$MOUNT_TMP/manifest.b" || {
    diff -- "$1" "$MOUNT_TMP/manifest.b" | head -n 20 >&2 || true
    fail "$2 differs from its source"
  }
}

# expect_status STATUS COMMAND...: the exit status (a pattern); output goes to $MOUNT_TMP/output (both streams) and .../error.
expect_status() {
  local wanted=$1 got=0
  shift
  timeout $((30 * MOUNT_TIME_FACTOR)) "$@" >"$MOUNT_TMP/output" 2>"$MOUNT_TMP/error" || got=$?
  # shellcheck disable=SC2053 # a pattern, such as [13]
  [[ $got == $wanted ]] || {
    cat -- "$MOUNT_TMP/output" "$MOUNT_TMP/error" >&2
    fail "exit $got instead of $wanted from: $*"
  }
}

# expect_refusal STATUS PATTERN COMMAND...: fails in one sentence on stderr that matches PATTERN (grep -E, any case).
expect_refusal() {
  local status=$1 pattern=$2 lines
  shift 2
  expect_status "$status" "$@"
  lines=$(grep -c . "$MOUNT_TMP/error") || true
  [[ $lines == 1 ]] || {
    cat -- "$MOUNT_TMP/error" >&2
    fail "a refusal is one line on stderr, not $lines: $*"
  }
  grep -qiE -- "$pattern" "$MOUNT_TMP/error" || {
    cat -- "$MOUNT_TMP/error" >&2
    fail "the refusal does not say /$pattern/: $*"
  }
  say "refused as it should: $(<"$MOUNT_TMP/error")"
}
