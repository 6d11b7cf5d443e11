#!/usr/bin/env bash
# From a clean clone to a mounted cache: installs what is missing, builds the release, mounts DIR (or a demo tree) read
# only, reads it twice and compares every byte, says where the bytes came from and how fast, unmounts.
#
#   packaging/quickstart.sh [DIR]
#
# Leaves the installed packages and build/release; no mount, no process, nothing in /tmp, also when interrupted.
set -uo pipefail

if [[ $# -gt 1 || ${1:-} == -* ]]; then
  echo "usage: packaging/quickstart.sh [DIR]" >&2
  [[ ${1:-} == --help ]] && exit 0
  exit 2
fi
source_dir=''
if [[ $# -eq 1 ]]; then
  if [[ ! -d $1 ]]; then echo "quickstart: $1 is no directory" >&2; exit 1; fi
  source_dir=$(realpath -e -- "$1") || exit 1
  # The mount point is made in /tmp: a tree that holds it would hold itself.
  if [[ /tmp/ == "${source_dir%/}"/* ]]; then
    echo "quickstart: choose a directory that does not contain /tmp" >&2
    exit 1
  fi
fi
cd "$(dirname "$0")/.." || exit 1
build_dir=build/release
binary=$build_dir/src/blobcache
work_dir=''
mounted=0
child=0

clean_up() { # returns 1 when something had to be removed by force
  local status=0
  if [[ $mounted -eq 1 ]]; then
    mounted=0
    "$binary" umount "$work_dir/mount" || status=1
  fi
  if [[ -n $work_dir ]]; then
    python3 tests/harness/leftovers.py "$work_dir" "$BLOBTEST_RUN"
    local left=$?
    if [[ $left -ne 0 ]]; then status=1; fi
    # Never below something that is still mounted: it would be the user's files.
    if [[ $left -le 1 ]]; then rm -rf --one-file-system -- "$work_dir"; fi
    work_dir=''
  fi
  return $status
}

interrupted() {
  trap '' INT TERM HUP
  if [[ $child -ne 0 ]]; then kill -TERM -- "-$child" 2>/dev/null; wait "$child" 2>/dev/null; fi
  clean_up
  echo "quickstart: INTERRUPTED"
  exit 130
}
trap interrupted INT TERM HUP
trap clean_up EXIT

# In a process group of its own, so that a signal to this script is acted on at once.
run_child() {
  set -m
  "$@" </dev/null &
  child=$!
  set +m
  wait "$child"
  local status=$?
  child=0
  return $status
}

give_up() {
  echo "quickstart: FAILED: $1"
  exit 1
}

# A quarter of what is free, 256 MiB to 2 GiB: enough for the demo, and never what the machine's real work needs.
memory_mib() {
  local mib
  mib=$(awk '/^MemAvailable:/ { print int($2 / 4096) }' /proc/meminfo)
  echo $((mib < 256 ? 256 : mib > 2048 ? 2048 : mib))
}

echo "1/4 installing what is missing"
run_child packaging/install-deps.sh build || give_up "what the build needs could not be installed"

echo "2/4 building the release in $build_dir"
if [[ ! -e $build_dir/build.ninja ]]; then
  run_child meson setup "$build_dir" --buildtype=release -Dtests=false >/dev/null ||
    give_up "meson setup ended with an error: see $build_dir/meson-logs/meson-log.txt"
fi
run_child ninja -C "$build_dir" --quiet || give_up "the build ended with an error (above)"

work_dir=$(mktemp -d /tmp/blobcache-quickstart.XXXXXX) || give_up "no folder could be made in /tmp"
BLOBTEST_RUN=$(basename "$work_dir") # marks the processes that clean_up may end
export BLOBTEST_RUN
mkdir "$work_dir/mount"
shown_dir=$source_dir
if [[ -z $source_dir ]]; then
  source_dir=$work_dir/demo
  shown_dir=/some/directory
  mkdir "$source_dir"
  run_child python3 packaging/quickstart_verify.py demo "$source_dir" ||
    give_up "the demo tree could not be made: it needs 310 MiB in /tmp"
fi

memory=$(memory_mib)MiB
echo "3/4 mounting $source_dir with --memory=$memory"
mounted=1
run_child "$binary" mount "$source_dir" "$work_dir/mount" --memory="$memory" || give_up "the mount did not come up (above)"
mountpoint -q "$work_dir/mount" || give_up "blobcache mount said it was done, but nothing is mounted"

echo "4/4 reading everything twice"
run_child python3 packaging/quickstart_verify.py verify "$source_dir" "$work_dir/mount" ||
  give_up "what was read is not what the source has (above)"
if [[ -f $work_dir/mount/model.bin ]]; then run_child "$binary" stat "$work_dir/mount/model.bin" || true; fi

clean_up || give_up "the unmount left something behind (above)"
echo
echo "quickstart: PASSED"
echo "Next:"
echo "  sudo $binary mount $shown_dir /mnt/point --memory=2GiB    your own tree"
echo "  sudo $binary umount /mnt/point"
echo "  sudo $binary doctor $shown_dir                            what would make it faster here"
