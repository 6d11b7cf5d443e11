#!/usr/bin/env bash
# Readers of files that describe themselves, from the disk: a model that is mapped and copied out tensor by tensor, in the order
# of the file and in random order, as the safetensors package does (by the package itself where the machine has it), and a
# loader of tar shards. Nearly all that they read has been fetched for them, and little else. A model with a broken header is
# a file like any other.
TEST_DEADLINE_S=200
source "$(dirname -- "$0")/disk_lib.sh"

MIB=1048576
mkdir -p "$source_dir"
cat >"$MOUNT_TMP/model.py" <<'PYTHON'
"""write FILE, or read FILE ORIGINAL file|shuffled: every tensor against the original."""
import json, mmap, os, random, struct, sys

def tensors_of(data):
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(bytes(data[8:8 + length]))
    return [[8 + length + at for at in tensor["data_offsets"]] for name, tensor in header.items() if name != "__metadata__"]

def write(path):
    sizes = [6 * 2**20 + 12288, 8192, 9 * 2**20, 8192] * 10
    header, at = {}, 0
    for number, size in enumerate(sizes):
        header[f"layer.{number}"] = {"dtype": "F32", "shape": [size // 4], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for size in sizes:
            file.write(os.urandom(size))

def mapped(path):
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

def read(path, original, order):
    # The original first: what it costs is not the mount's.
    with open(original, "rb") as file:
        expected = file.read()
    data = memoryview(mapped(path))
    tensors = tensors_of(data)
    if order == "shuffled":
        random.Random(7).shuffle(tensors)
    try:
        from safetensors import safe_open
        with safe_open(path, framework="numpy") as model:
            names = [name for name in model.keys()]
            for name in names if order == "file" else random.Random(7).sample(names, len(names)):
                model.get_tensor(name)
    except ImportError:
        pass
    for low, high in tensors:
        if bytes(data[low:high]) != expected[low:high]:
            sys.exit(f"wrong bytes in {low}-{high}")

globals()[sys.argv[1]](*sys.argv[2:])
PYTHON
"$PYTHON" "$MOUNT_TMP/model.py" write "$source_dir/model"
"$PYTHON" - "$source_dir" <<'PYTHON'
import io, os, sys, tarfile
for shard in range(4):
    with tarfile.open(f"{sys.argv[1]}/shard-{shard}.tar", "w") as tar:
        for sample in range(150):
            for suffix, size in (("jpg", 20000 + sample * 997), ("cls", 2)):
                entry = tarfile.TarInfo(f"{shard}-{sample:04}.{suffix}")
                entry.size = size
                tar.addfile(entry, io.BytesIO(os.urandom(size)))
PYTHON
{
  printf '\x00\x10\x00\x00\x00\x00\x00\x00{"layer": {"dtype": "F32", "data_offsets": [0, '
  head -c 20000000 "$source_dir/model"
} >"$source_dir/broken"
settle "$source_dir/broken"
FILES=(broken model shard-0.tar shard-1.tar shard-2.tar shard-3.tar)
all_verified() { verified_is "$(total_bytes "$source_dir" "${FILES[@]}")" "${FILES[@]}"; }

prefetched() { status "volume['prefetch']['$1']"; }
lies_still() { [[ $(status "node['tiers']['memory']['pinned_frames']") == 0 ]]; }
nothing_open() { [[ $(status "volume['open']") == 0 ]]; }

# well_foreseen FILE... (what was read): most of it was fetched ahead, and little for nothing.
well_foreseen() {
  local total used wasted
  wait_for 10 "the files are closed" nothing_open
  wait_for 10 "the last loads" lies_still
  total=$(total_bytes "$source_dir" "$@")
  used=$(prefetched used)
  wasted=$(prefetched wasted)
  ((used * 100 >= total * FORESEEN_PERCENT)) || fail "of $total bytes $used were fetched ahead: $(status "volume['prefetch']")"
  ((wasted * 100 <= total * 5)) || fail "$wasted bytes were fetched for nothing, of $total: $(status "volume['prefetch']")"
  [[ $(served origin) == 0 ]] || fail "the origin was asked for what is on disk"
  say "$(status "volume['prefetch']")"
}

check() {
  local order
  DISK_OPTIONS=(-o fuse.passthrough=off)
  rm -rf "$cache"
  mount_cached
  fill_cache "${FILES[@]}"
  wait_for 60 "all of it is verified" all_verified
  for order in file shuffled; do
    stop_mount "$mnt"
    mount_cached
    "$PYTHON" "$MOUNT_TMP/model.py" read "$mnt/model" "$source_dir/model" "$order" || fail "tensors, $order"
    # Each tensor begins with a fault or two that nobody foresees.
    if [[ $order == file ]]; then FORESEEN_PERCENT=85; else FORESEEN_PERCENT=55; fi
    well_foreseen model
  done
  stop_mount "$mnt"
  mount_cached
  "$PYTHON" - "$mnt" "$source_dir" <<'PYTHON' || fail "shards"
import sys, tarfile
mount, source = sys.argv[1:]
for shard in (2, 0, 3, 1):
    with tarfile.open(f"{mount}/shard-{shard}.tar", "r|") as ours, tarfile.open(f"{source}/shard-{shard}.tar", "r|") as theirs:
        for a, b in zip(ours, theirs, strict=True):
            assert a.name == b.name and ours.extractfile(a).read() == theirs.extractfile(b).read()
PYTHON
  FORESEEN_PERCENT=70 # the start of a file is read before anything is known of its reader
  well_foreseen shard-0.tar shard-1.tar shard-2.tar shard-3.tar
  compare broken
  well_foreseen broken shard-0.tar shard-1.tar shard-2.tar shard-3.tar
  stop_mount "$mnt"
}
with_each_transport check
