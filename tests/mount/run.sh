#!/usr/bin/env bash
# `run`: several volumes on one set of cores, a service manager that listens, a reload under load that loses no request, a
# reload of nonsense that changes nothing, and an end in order.
TEST_DEADLINE_S=100
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"

mkdir -p "$MOUNT_TMP"/{one,two,mnt-one,mnt-two,cache-a,cache-b}
head -c 9000000 /dev/urandom >"$MOUNT_TMP/one/file"
head -c 3000000 /dev/urandom >"$MOUNT_TMP/two/file"
# Nothing is kept of a file that changed within the last second.
wait_for 10 "settled files" is_settled "$MOUNT_TMP/two/file"
config=$MOUNT_TMP/blobcache.toml
log=$MOUNT_TMP/run.log
told=$MOUNT_TMP/told
port=$(free_port)

start_manager "$MOUNT_TMP/notify" "$told"
listener=$MANAGER_PID
tree=$MOUNT_TMP/two
install_nginx
start_tree_server "$port" "$tree"
server=$NGINX_PID
trap 'kill "$listener" "$server" 2>/dev/null || true' EXIT
serves() { curl -fsS --noproxy '*' -o /dev/null "http://127.0.0.1:$port/file" 2>/dev/null; }
wait_for 20 "the web server" serves

write_config() { # ENTRY_TIMEOUT LEVEL [OBJECT_TTL]: the rest is the same
  cat >"$config" <<TOML
[node]
name = "test-$$"
cores = 2
[memory]
limit = "384MiB"
[http]
listen = ""
[log]
level = "$2"
[fuse]
entry_timeout = "$1"
[cache]
object_ttl = "${3-0s}"
[[cache.disk]]
path = "$MOUNT_TMP/cache-a"
size = "100MiB"
[[cache.disk]]
path = "$MOUNT_TMP/cache-b"
size = "100MiB"
[[volume]]
name = "one"
source = "$MOUNT_TMP/one"
mountpoint = "$MOUNT_TMP/mnt-one"
[[volume]]
name = "two"
source = "http://127.0.0.1:$port/"
mountpoint = "$MOUNT_TMP/mnt-two"
TOML
}

# What cannot be served is refused before anything is mounted.
: >"$config"
expect_refusal 1 'names no \[\[volume\]\]' "$BLOBCACHE" run --config="$config"
printf '[node]\ncoers = 2\n' >"$config"
expect_refusal 1 'blobcache.toml:2: node.coers is no key; the nearest is node.cores' "$BLOBCACHE" run --config="$config"
printf '[http]\nlisten = "0.0.0.0:%s"\n[[volume]]\nsource = "/"\nmountpoint = "/mnt"\n' "$port" >"$config"
expect_refusal 1 'http.listen.*http.secret_file' "$BLOBCACHE" run --config="$config"
# A token that is too short is found before memory is taken, which takes seconds.
printf 'short\n' >"$MOUNT_TMP/token"
printf '[memory]\nlimit = "700MiB"\n[http]\nlisten = "127.0.0.1:%s"\nsecret_file = "%s"\n[[volume]]\nsource = "%s"\nmountpoint = "%s"\n' \
  "$port" "$MOUNT_TMP/token" "$MOUNT_TMP/one" "$MOUNT_TMP/mnt-one" >"$config"
expect_refusal 1 'no token of at least 16' "$PYTHON" -c '
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], check=False).returncode
held_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
sys.exit(code if held_mib < 300 else f"{held_mib:.0f} MiB were taken first")' "$BLOBCACHE" run --config="$config"
printf '[[volume]]\nsource="/a"\nmountpoint="/m"\n[[volume]]\nsource="/b"\nmountpoint="/m/n"\n' >"$config"
expect_refusal 1 'inside the mount point /m of another volume' "$BLOBCACHE" run --config="$config"

write_config 5s info
NOTIFY_SOCKET=$MOUNT_TMP/notify WATCHDOG_USEC=2000000 BLOBCACHE_FUSE_ATTR_TIMEOUT=7s \
  "$BLOBCACHE" run --config="$config" >"$log" 2>&1 &
node=$!
wait_for 30 "READY=1" grep -q '^READY=1' "$told"
grep -q '^READY=1 STATUS=serving 2 volumes on 2 cores' "$told" || fail "no word of what is served: $(<"$told")"
cmp "$MOUNT_TMP/one/file" "$MOUNT_TMP/mnt-one/file" || fail "bytes of the directory"
cmp "$MOUNT_TMP/two/file" "$MOUNT_TMP/mnt-two/file" || fail "bytes of the web server"
wait_for 10 "WATCHDOG=1" grep -q '^WATCHDOG=1' "$told"

# Each mount leads to its daemon.
for mount in one two; do
  "$BLOBCACHE" stat "$MOUNT_TMP/mnt-$mount/file" >/dev/null || fail "stat below mnt-$mount"
done

# reads MOUNT: reads all the time until told to stop; any error or wrong byte fails.
reads() {
  while [[ ! -e $MOUNT_TMP/stop ]]; do
    cmp "$MOUNT_TMP/$1/file" "$MOUNT_TMP/mnt-$1/file" || return 1
    dd if="$MOUNT_TMP/mnt-$1/file" of=/dev/null bs=64K iflag=direct status=none || return 1
  done
}
reads one & reader_one=$!
reads two & reader_two=$!
reloads() { grep -c '^RELOADING=1 MONOTONIC_USEC=[0-9][0-9]*$' "$told"; }
reload() { # expects that many more READY
  local before
  before=$(grep -c '^READY=1' "$told")
  kill -HUP "$node"
  is_reloaded() { (($(grep -c '^READY=1' "$told") > before)); }
  wait_for 20 "the end of the reload" is_reloaded
}
for round in 1 2 3 4 5; do
  write_config "${round}1s" info
  reload
  grep -q "reload: fuse.entry_timeout = .*${round}1s" "$log" || fail "the log tells nothing of reload $round"
done
[[ $(reloads) == 5 ]] || fail "$(reloads) reloads were told of, not 5"

# What needs a restart says so, each time, and what does not is taken over all the same.
write_config 61s warn
sed -i 's/^cores = 2/cores = 1/; s/"100MiB"/"90MiB"/' "$config"
reload
for place in 'node.cores' 'cache.disk\[0\].size' 'cache.disk\[1\].size'; do
  grep -q "reload: $place = .* needs a restart" "$log" || fail "nothing is said of $place"
done
lines=$(wc -l <"$log")
write_config 62s warn
reload
[[ $(wc -l <"$log") == "$lines" ]] || fail "log.level = warn did not take effect: $(tail -n 3 "$log")"

# The environment is above the file, at a reload too.
sed -i 's/^entry_timeout.*/entry_timeout = "5s"\nattr_timeout = "3s"/; s/^level.*/level = "info"/' "$config"
reload
grep -q 'reload: fuse.entry_timeout' "$log" || fail "the reload did not take place"
! grep -q 'reload: fuse.attr_timeout' "$log" || fail "the file went over the environment"

# Nonsense changes nothing, and says where it is.
write_config 5s debug
sed -i 's/^entry_timeout.*/entry_timeout = "soon"/' "$config"
reload
grep -q "reload: .*blobcache.toml:11: fuse.entry_timeout" "$log" || fail "no line for the mistake: $(tail -n 3 "$log")"
grep -q 'nothing has changed' "$log" || fail "not said that nothing has changed"
grep -q '^READY=1 STATUS=the configuration was not reloaded: ' "$told" || fail "the manager does not know"
write_config 5s info
sed -i '$d' "$config" # the last volume has no mount point
reload
grep -q 'volume\[1\].mountpoint = .*no absolute path' "$log" || fail "no word of the missing mount point"

touch "$MOUNT_TMP/stop"
wait "$reader_one" || fail "a reader of the directory failed"
wait "$reader_two" || fail "a reader of the web server failed"

# What is cached leaves when its time is over, once it has one.
cached() { [[ -n $(find "$MOUNT_TMP"/cache-{a,b}/objects -type f -print -quit) ]]; }
is_empty() { ! cached; }
wait_for 10 "something on the disks" cached
write_config 5s info 1s
reload
wait_for 20 "the end of what is older than cache.object_ttl" is_empty

# One volume may leave; the others stay. The daemon is not waited for, since it goes on.
SECONDS=0
timeout 20 "$BLOBCACHE" umount "$MOUNT_TMP/mnt-one" || fail "umount of one of two"
((SECONDS < 2)) || fail "umount waited for a daemon that goes on"
cmp "$MOUNT_TMP/two/file" "$MOUNT_TMP/mnt-two/file" || fail "the other volume is gone too"

kill -TERM "$node"
status=0
wait "$node" || status=$?
[[ $status == 0 ]] || fail "run ended with $status after SIGTERM"
is_unmounted "$MOUNT_TMP/mnt-two" || fail "still mounted after the end"
wait_for 10 "STOPPING=1" grep -q '^STOPPING=1' "$told"
compgen -G "/run/blobcache/test*$$.sock" >/dev/null && fail "the control socket is left over"
no_crash
