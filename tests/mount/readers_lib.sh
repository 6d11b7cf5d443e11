# shellcheck shell=bash
# Readers that are in the middle of something when the daemon or the origin goes away: buffered, O_DIRECT and mapped
# reads of a large file, and one that lists and stats.

READER_PIDS=()
READER_INPUTS=()

# make_big_file DIRECTORY: DIRECTORY/big, larger than what readers get through before a test goes on.
make_big_file() {
  mkdir -p "$1/tree"
  "$MOUNT_PROBE" write "$1/big" $((256 * 1048576)) 1 1
  local number
  for number in $(seq 200); do
    echo "$number" >"$1/tree/$number"
  done
}

# start_readers FILE [OPTION...]: READER_PIDS, each of which has had its first bytes. With --gate they then wait for
# open_gate, so that what they read next is not cached anywhere.
start_readers() {
  local file=$1 mode input
  shift
  READER_PIDS=()
  READER_INPUTS=()
  rm -f "$MOUNT_TMP"/readers.*
  for mode in pread direct mmap; do
    mkfifo "$MOUNT_TMP/readers.input-$mode"
    # --allow: what they get when the daemon goes is checked by the tests that promise something about it.
    "$MOUNT_PROBE" hammer --readers=1 --mode="$mode" --request=4096 "$@" \
      --allow=EIO,ENOTCONN,ECONNABORTED,ECANCELED,ENOENT,EINTR,ENODEV,ESTALE "$file" \
      <"$MOUNT_TMP/readers.input-$mode" >"$MOUNT_TMP/readers.$mode" &
    READER_PIDS+=($!)
    disown "$!" # they are killed on purpose, the shell need not tell
    exec {input}>"$MOUNT_TMP/readers.input-$mode"
    READER_INPUTS+=("$input")
  done
  for mode in pread direct mmap; do
    wait_for 30 "a $mode reader is in the file" grep -qE '^(ready|wrong)' "$MOUNT_TMP/readers.$mode"
  done
}

open_gate() {
  local input
  for input in "${READER_INPUTS[@]}"; do
    echo >&"$input"
  done
}

# all_waiting: every reader has a thread that waits (for the daemon: nothing else stops them).
all_waiting() {
  local pid task
  for pid in "${READER_PIDS[@]}"; do
    for task in "/proc/$pid/task"/*; do
      grep -qE '^(request_wait_answer|fuse|folio_wait|__fuse|wait_on_page|io_schedule)' "$task/wchan" 2>/dev/null && continue 2
    done
    return 1
  done
}

# kill_readers: kill -9, and none of them may stay; none of them may have seen a wrong byte before.
kill_readers() {
  local mode input
  kill -KILL "${READER_PIDS[@]}" 2>/dev/null || true
  wait_gone 5 "${READER_PIDS[@]}"
  for input in "${READER_INPUTS[@]}"; do
    exec {input}>&-
  done
  for mode in pread direct mmap; do
    ! grep wrong "$MOUNT_TMP/readers.$mode" >&2 || fail "a $mode reader got wrong bytes"
  done
}
