#!/usr/bin/env bash
# What a reload changes takes effect without a restart, while somebody reads: prefetch, the quota, how long versions are
# trusted. What needs a restart says so.
TEST_DEADLINE_S=100
source "$(dirname -- "$0")/disk_lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"

tree=$MOUNT_TMP/tree
config=$MOUNT_TMP/blobcache.toml
log=$MOUNT_TMP/run.log
port=$(free_port)
mkdir -p "$tree" "$mnt"
MIB=1048576
for name in a b c d; do head -c $((24 * MIB)) /dev/urandom >"$tree/$name"; done
head -c 300000 /dev/urandom >"$tree/busy"
printf 'old' >"$tree/changing"
install_nginx
start_tree_server "$port" "$tree"
server=$NGINX_PID
told=$MOUNT_TMP/told
start_manager "$MOUNT_TMP/notify" "$told"
trap 'kill "$server" "$MANAGER_PID" 2>/dev/null || true' EXIT
wait_for 20 "nginx" curl -fsS --noproxy '*' -o /dev/null "http://127.0.0.1:$port/"

declare -A settings
set_keys() { # KEY=VALUE...
  local each
  for each in "$@"; do settings[${each%%=*}]=${each#*=}; done
}
write_config() {
  local section
  printf '[node]\nname = "test-%s"\ncores = 1\n[memory]\nlimit = "384MiB"\n[http]\nlisten = ""\n' $$ >"$config"
  for section in cache fuse prefetch; do
    printf '[%s]\n' "$section"
    section_keys "$section"
  done >>"$config"
  {
    printf '[[cache.disk]]\npath = "%s"\nsize = "100MiB"\n' "$cache"
    printf '[[volume]]\nsource = "http://127.0.0.1:%s/"\nmountpoint = "%s"\n' "$port" "$mnt"
    section_keys volume
  } >>"$config"
}
section_keys() {
  local key
  for key in "${!settings[@]}"; do
    [[ $key == "$1".* ]] || continue
    case $key in
      prefetch.enabled | prefetch.*_reads | prefetch.*_window | prefetch.streams) printf '%s = %s\n' "${key#*.}" "${settings[$key]}" ;;
      *) printf '%s = "%s"\n' "${key#*.}" "${settings[$key]}" ;;
    esac
  done
}
ready() { grep -c '^READY=1' "$told" || true; }
reload() { # KEY=VALUE...
  local before lines
  set_keys "$@"
  write_config
  before=$(ready)
  lines=$(wc -l <"$log")
  kill -HUP "$node"
  is_reloaded() { (($(ready) > before)); }
  wait_for 20 "the end of the reload" is_reloaded
  RELOADED=$(tail -n +$((lines + 1)) "$log")
}
pieces() { status "volume['prefetch']['pieces']"; }
# read_file FILE FIRST COUNT: in blocks of 64 KiB past the page cache; right or a failure.
read_file() {
  cmp <(dd if="$mnt/$1" bs=64K skip="$2" count="$3" iflag=direct status=none) \
    <(dd if="$tree/$1" bs=64K skip="$2" count="$3" status=none) || fail "wrong bytes of $1"
}

set_keys cache.object_ttl=0s fuse.entry_timeout=0s fuse.attr_timeout=0s fuse.negative_timeout=0s fuse.passthrough=off \
  prefetch.enabled=false volume.revalidate=never volume.quota=0 volume.profile=auto
write_config
NOTIFY_SOCKET=$MOUNT_TMP/notify "$BLOBCACHE" run --config="$config" >"$log" 2>&1 &
node=$!
wait_for 30 "READY=1" grep -q '^READY=1' "$told"
wait_for 10 "settled files" is_settled "$tree/changing"

# Somebody reads all the time: no request is lost, no byte is wrong.
reads() {
  while [[ ! -e $MOUNT_TMP/stop ]]; do
    cmp "$tree/busy" "$mnt/busy" || return 1
    dd if="$mnt/busy" of=/dev/null bs=4K iflag=direct status=none || return 1
  done
}
reads &
reader=$!

# Prefetch: off, on, and off for a file in the middle of being read ahead of.
read_file a 0 384
[[ $(pieces) == 0 ]] || fail "prefetch was switched off: $(status "volume['prefetch']")"
reload prefetch.enabled=true
grep -q 'reload: prefetch.enabled = .*true.* (was .*false' <<<"$RELOADED" || fail "the log says: $RELOADED"
take() { "$PYTHON" - "$held" "$1" <<'PYTHON'
import os, sys
for _ in range(int(sys.argv[2])):
    os.read(int(sys.argv[1]), 65536)
PYTHON
}
# Held open: while writes to a slow disk wait, nothing is fetched ahead of anybody, and it comes when they have gone.
is_followed() { (($(pieces) > before)); }
before=0
exec {held}<"$mnt/b"
take 64
wait_for 20 "pieces of b, now that prefetch is on" is_followed
exec {held}<&-
read_file b 0 384
before=$(pieces)
exec {held}<"$mnt/c"
take 64
wait_for 20 "pieces of c" is_followed
reload prefetch.enabled=false
take 16
lies_still() { [[ $(status "node['tiers']['memory']['pinned_frames']") == 0 ]]; }
wait_for 10 "what was in flight" lies_still
take 40 # beyond what the kernel had read ahead: the first read that comes gives up what was wanted
wait_for 10 "what was in flight" lies_still
before=$(pieces)
take 200
[[ $(pieces) == "$before" ]] || fail "it is read ahead of: $before pieces before, $(pieces) now"
exec {held}<&-
# Where one read makes a reader sequential, its second one finds pieces; where a thousand must agree, none does.
reload prefetch.enabled=true prefetch.trigger_reads=1000
before=$(pieces)
read_file d 0 100
[[ $(pieces) == "$before" ]] || fail "fewer than prefetch.trigger_reads made pieces"
reload prefetch.trigger_reads=2 prefetch.min_window=2 prefetch.max_window=2 prefetch.streams=1 prefetch.idle_timeout=1s \
  prefetch.bandwidth=100MB prefetch.max_gap=1MiB
for key in trigger_reads min_window max_window streams idle_timeout bandwidth max_gap; do
  grep -q "reload: prefetch.$key = " <<<"$RELOADED" || fail "nothing is said of prefetch.$key: $RELOADED"
done
! grep -q 'needs a restart' <<<"$RELOADED" || fail "something needs a restart: $RELOADED"
read_file d 100 284
(($(pieces) > before)) || fail "nothing was read ahead after the windows were changed"
# A window that cannot be: nothing at all is taken over.
reload prefetch.min_window=64 prefetch.streams=2
grep -q 'prefetch.min_window.*above prefetch.max_window' <<<"$RELOADED" || fail "the log says: $RELOADED"
grep -q 'nothing has changed' <<<"$RELOADED" || fail "not said that nothing has changed"
reload prefetch.min_window=2
grep -q 'reload: prefetch.streams = .*2.* (was .*1' <<<"$RELOADED" || fail "it had been taken over before: $RELOADED"

# The quota: the disk's limit follows, and what is above it leaves.
status_is "disk['limit']" $((100 * MIB)) || fail "the limit at first: $(status disk)"
reload volume.quota=32MiB
wait_for 30 "the limit follows the quota" status_is "disk['limit']" $((32 * MIB))
wait_for 30 "what is above it leaves" status_is "disk['used'] <= $((32 * MIB))" True
reload volume.quota=0
wait_for 30 "the limit follows its end" status_is "disk['limit']" $((100 * MIB))

# Versions: trusted for ever, until the reload says otherwise.
[[ $(<"$mnt/changing") == old ]] || fail "the file before it changes"
printf 'newer' >"$tree/changing.next"
mv "$tree/changing.next" "$tree/changing"
[[ $(stat -c %s "$mnt/changing") == 3 ]] || fail "the new version is seen though versions are never looked at again"
reload volume.revalidate=0s
sees_new() { [[ $(<"$mnt/changing") == newer ]]; }
wait_for 10 "the new version" sees_new

# These are chosen when the tier is made.
reload cache.eviction=s3fifo cache.admission=all
for key in eviction admission; do
  grep -q "reload: cache.$key = .* needs a restart" <<<"$RELOADED" || fail "nothing is said of cache.$key: $RELOADED"
done

touch "$MOUNT_TMP/stop"
wait "$reader" || fail "a reader saw an error or a wrong byte"
kill -TERM "$node"
status=0
wait "$node" || status=$?
[[ $status == 0 ]] || fail "run ended with $status after SIGTERM"
is_unmounted "$mnt" || fail "still mounted after the end"
no_crash
