#!/usr/bin/env bash
# Readers of some columns of a parquet file, who begin at its end: what its footer says of where they go next is fetched ahead,
# and nothing of the other columns. Who reads the end of a file that is no table, or the table here and there, has nothing
# fetched for him.
TEST_DEADLINE_S=120
source "$(dirname -- "$0")/disk_lib.sh"

mkdir -p "$source_dir"
cat >"$MOUNT_TMP/table.py" <<'PYTHON'
"""write FILE, or read FILE ORIGINAL columns|scattered: the footer, then column chunks, in direct reads of 256 KiB."""
import mmap, os, random, struct, sys
GROUPS, COLUMNS, CHUNK = 12, 10, 1_300_000

def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])

def i64(head, value):
    return bytes([head]) + varint(value << 1)

def footer():
    groups = b""
    for group in range(GROUPS):
        columns = b""
        for column in range(COLUMNS):
            at = 4 + (group * COLUMNS + column) * CHUNK
            # ColumnChunk: file_offset 2, meta_data 3 {total_compressed_size 7, data_page_offset 9}
            columns += i64(0x26, at) + b"\x1c" + i64(0x76, CHUNK) + i64(0x26, at) + b"\x00" + b"\x00"
        groups += b"\x19" + bytes([COLUMNS << 4 | 12]) + columns + b"\x00"
    return b"\x49" + bytes([GROUPS << 4 | 12]) + groups + b"\x00"

def write(path):
    with open(path, "wb") as file:
        file.write(b"PAR1" + random.Random(1).randbytes(GROUPS * COLUMNS * CHUNK))
        text = footer()
        file.write(text + struct.pack("<I", len(text)) + b"PAR1")

def read(path, original, how):
    ours, theirs = os.open(path, os.O_RDONLY | os.O_DIRECT), os.open(original, os.O_RDONLY)
    size = os.fstat(ours).st_size
    page = mmap.mmap(-1, 1 << 20)
    def piece(begin, bytes):
        low = begin // 4096 * 4096
        got = os.preadv(ours, [memoryview(page)[:(begin + bytes - low + 4095) // 4096 * 4096]], low)
        if page[begin - low:begin - low + bytes] != os.pread(theirs, bytes, begin) or got < begin + bytes - low:
            sys.exit(f"wrong bytes at {begin}")
    piece(size - 8, 8)
    piece(size - 8 - 60000, 60000)
    chunks = [(group, column) for group in range(GROUPS) for column in (2, 7)]
    if how == "scattered":
        chunks = random.Random(4).sample([(g, c) for g in range(GROUPS) for c in range(COLUMNS)], 6)
    for group, column in chunks:
        begin = 4 + (group * COLUMNS + column) * CHUNK
        for at in range(begin, begin + CHUNK, 256 * 1024):
            piece(at, min(256 * 1024, begin + CHUNK - at))

globals()[sys.argv[1]](*sys.argv[2:])
PYTHON
"$PYTHON" "$MOUNT_TMP/table.py" write "$source_dir/table"
head -c 20000000 "$source_dir/table" >"$source_dir/cut" # it begins as a table and does not end as one
settle "$source_dir/cut"

prefetched() { status "volume['prefetch']['$1']"; }
told() { status "volume['prefetch']"; }
is_still() { [[ $(status "(node['tiers']['memory']['pinned_frames'], volume['open'])") == "(0, 0)" ]]; }
comes_to_rest() { wait_for 20 "nothing is open or under way" is_still; }

check() {
  local read=$((12 * 2 * 1300000))
  start_mount "$source_dir" "$mnt"
  "$PYTHON" "$MOUNT_TMP/table.py" read "$mnt/table" "$source_dir/table" columns || fail "two columns"
  comes_to_rest
  (($(prefetched used) * 100 >= read * 75)) || fail "of $read bytes of two columns few were fetched ahead: $(told)"
  (($(prefetched wasted) * 20 <= read)) || fail "much was fetched for nothing: $(told)"
  (($(status "volume['origin_bytes']") * 100 <= read * 112)) || fail "other columns were fetched: $(status "volume['origin_bytes']")"
  say "two columns: $(told)"
  stop_mount "$mnt"

  start_mount "$source_dir" "$mnt"
  "$PYTHON" "$MOUNT_TMP/table.py" read "$mnt/table" "$source_dir/table" scattered || fail "chunks here and there"
  comes_to_rest
  # A touch of a chunk foretells the rest of it, and no other.
  (($(prefetched wasted) * 20 <= 6 * 1300000)) || fail "much was fetched for nothing: $(told)"
  say "here and there: $(told)"
  stop_mount "$mnt"

  start_mount "$source_dir" "$mnt"
  tail -c 8 "$mnt/cut" | cmp - <(tail -c 8 "$source_dir/cut") || fail "wrong bytes"
  dd if="$mnt/cut" of="$MOUNT_TMP/part" bs=64K count=1 skip=100 iflag=direct status=none
  comes_to_rest
  [[ $(prefetched origin) == 0 ]] || fail "the end of no table had something fetched: $(told)"
  stop_mount "$mnt"
}
with_each_transport check
