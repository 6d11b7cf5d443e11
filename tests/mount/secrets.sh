#!/usr/bin/env bash
# Secrets are planted wherever one may come from: configuration file, options, environment, URLs, files of keys and tokens, and
# a server that repeats what it was told. Nothing that the program says shows one: logs at debug level, messages, status,
# doctor, config show and check, report, mount table, extended attributes.
TEST_DEADLINE_S=90
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"

mnt=$MOUNT_TMP/mnt
said=$MOUNT_TMP/said
mark=pl4nted # every secret contains it
mkdir -p "$said" "$mnt" "$MOUNT_TMP/source"
head -c 100000 /dev/urandom >"$MOUNT_TMP/source/file"
echo "$mark-token-of-the-endpoint" >"$MOUNT_TMP/token"
printf '[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = %s-file\naws_session_token = %s-session-file\n' \
  "$mark" "$mark" >"$MOUNT_TMP/keys"
printf '[default]\naws_secret_access_key %s-malformed\n[default\n' "$mark" >"$MOUNT_TMP/malformed"
chmod 600 "$MOUNT_TMP"/{token,keys,malformed}
"$PYTHON" "$MOUNT_TESTS/secret_mirror.py" "$MOUNT_TMP/port" >"$MOUNT_TMP/mirror.log" 2>&1 &
mirror=$!
trap 'kill "$mirror" 2>/dev/null || true' EXIT
wait_for 20 "the mirror" test -s "$MOUNT_TMP/port"
url=http://127.0.0.1:$(<"$MOUNT_TMP/port")
# The mirror shows what it is told: else the test would see nothing.
curl -sS --noproxy '*' -H "Authorization: Bearer $mark-curl" "$url/?sig=$mark" | grep -c "$mark" >"$MOUNT_TMP/count" ||
  fail "the mirror shows nothing"

runs=0
# hear STATUS COMMAND...: runs it and keeps what it says; the status is a pattern.
hear() {
  local wanted=$1 status=0
  shift
  runs=$((runs + 1))
  timeout 30 "$@" >"$said/$runs.out" 2>"$said/$runs.err" || status=$?
  # shellcheck disable=SC2053 # a pattern
  [[ $status == $wanted ]] || fail "exit $status instead of $wanted from: $* ($(cat "$said/$runs.err"))"
}

debug=(-o log.level=debug -o "log.file=$said/daemon.log" -o origin.deadline=3s -o origin.retries=1)
keys_in_environment=(env AWS_ACCESS_KEY_ID=AKIAEXAMPLE "AWS_SECRET_ACCESS_KEY=$mark-environment"
  "AWS_SESSION_TOKEN=$mark-session-environment")

# URLs that nobody should write, and keys that a server repeats.
for source in "http://user:$mark-password@127.0.0.1/" "$url/tree/?X-Amz-Signature=$mark-signature&x=1" "$url/tree/?sig=$mark-sas" \
  "ftp://user:$mark-ftp@host/" "s3://user:$mark-bucket@blobs/tree"; do
  hear '[123]' "$BLOBCACHE" mount "$source" "$mnt" "${debug[@]}"
  hear '[0123]' "$BLOBCACHE" doctor "$source" "${debug[@]}"
done
for keys in "volume.s3.credentials=$MOUNT_TMP/keys" "volume.s3.credentials=$MOUNT_TMP/malformed"; do
  hear '[123]' "$BLOBCACHE" mount s3://blobs/tree "$mnt" -o "volume.s3.endpoint=$url" -o "$keys" "${debug[@]}"
  hear '[123]' "$BLOBCACHE" doctor s3://blobs/tree -o "volume.s3.endpoint=$url" -o "$keys"
done
hear '[123]' "${keys_in_environment[@]}" "$BLOBCACHE" mount s3://blobs/tree "$mnt" -o "volume.s3.endpoint=$url" "${debug[@]}"
hear '[123]' "${keys_in_environment[@]}" "$BLOBCACHE" doctor s3://blobs/tree -o "volume.s3.endpoint=$url" --json
hear '[123]' "$BLOBCACHE" mount s3://blobs/tree "$mnt" -o "volume.s3.endpoint=http://user:$mark-endpoint@127.0.0.1:1" "${debug[@]}"
hear '[123]' "$BLOBCACHE" mount s3://blobs/tree "$mnt" -o "volume.s3.endpoint=$url/?token=$mark-query" "${debug[@]}"
hear '[123]' env "http_proxy=http://user:$mark-proxy@127.0.0.1:1" "$BLOBCACHE" mount "http://example.invalid/" "$mnt" "${debug[@]}"
hear 2 "$BLOBCACHE" mount "$MOUNT_TMP/source" "$mnt" -o "http.secret=$mark-unknown-key" -o "http.secret_fil=$mark"
hear 2 "$BLOBCACHE" mount --password="password=$mark-option" "$MOUNT_TMP/source" "$mnt"

# A configuration file with all of them, right and wrong.
cat >"$MOUNT_TMP/right.toml" <<TOML
[http]
listen = "127.0.0.1:$(free_port)"
secret_file = "$MOUNT_TMP/token"
[memory]
limit = "384MiB"
[log]
level = "debug"
[[volume]]
name = "one"
source = "$MOUNT_TMP/source"
mountpoint = "$mnt"
[volume.s3]
endpoint = "https://user:$mark-in-the-file@host/"
TOML
hear '[01]' "$BLOBCACHE" config show --config="$MOUNT_TMP/right.toml"
hear '[01]' "$BLOBCACHE" config check --config="$MOUNT_TMP/right.toml"
{
  printf '[volume.s3]\nsecret_access_key = "%s"\n' "$mark-key-in-the-file"
  printf '[[volume]]\nsource = "gopher://u:%s@h/"\nmountpoint = "relative"\n' "$mark-gopher"
} >"$MOUNT_TMP/wrong.toml"
hear 1 "$BLOBCACHE" config check --config="$MOUNT_TMP/wrong.toml"
hear 1 "$BLOBCACHE" run --config="$MOUNT_TMP/wrong.toml"

# A daemon with secrets in its environment and in a file, told to reload more of them; all that it can be asked.
sed -i '/volume.s3/,$d' "$MOUNT_TMP/right.toml"
"${keys_in_environment[@]}" "$BLOBCACHE" run --config="$MOUNT_TMP/right.toml" >"$said/run.out" 2>"$said/run.log" &
daemon=$!
is_up() { is_mounted "$mnt" || { is_gone "$daemon" && fail "the daemon: $(tail -n 3 "$said/run.log")"; }; }
wait_for 20 "the mount" is_up
wait_for 20 "its bytes" cmp -s "$MOUNT_TMP/source/file" "$mnt/file"
printf '[volume.s3]\nendpoint = "https://user:%s@host/"\n' "$mark-reloaded" >>"$MOUNT_TMP/right.toml"
kill -HUP "$daemon"
wait_for 20 "the reload" grep -q 'reload' "$said/run.log"
for command in ping status mounts; do
  "$PYTHON" - "/run/blobcache/$("$PYTHON" -c 'import socket; print(socket.gethostname())').sock" $command \
    >>"$said/control" <<'PYTHON'
import socket, sys
with socket.socket(socket.AF_UNIX) as link:
    link.connect(sys.argv[1])
    link.sendall(sys.argv[2].encode() + b"\n")
    while part := link.recv(65536):
        sys.stdout.write(part.decode())
PYTHON
done
hear 0 "$BLOBCACHE" stat "$mnt/file"
hear 0 "$BLOBCACHE" version --json
for command in "status --node=$mnt" "status --node=$mnt --json" "top --node=$mnt --once" "report --output=$said/report.tar.gz"; do
  # shellcheck disable=SC2086 # words
  hear 0 $BLOBCACHE $command
done
if [[ -e $said/report.tar.gz ]]; then
  mkdir "$said/report"
  tar -C "$said/report" -xzf "$said/report.tar.gz"
  rm "$said/report.tar.gz"
fi
getfattr -d "$mnt/file" >"$said/attributes" 2>&1 || true
cat /proc/self/mountinfo >"$said/mountinfo"
kill "$daemon"
wait "$daemon" || true

((runs >= 25)) || fail "only $runs commands were heard"
[[ $(find "$said" -type f -size +0 | wc -l) -gt 25 ]] || fail "little was said: $(ls "$said")"
if grep -rF -- "$mark" "$said" >"$MOUNT_TMP/leaks"; then
  cut -c 1-400 "$MOUNT_TMP/leaks" >&2
  fail "$(wc -l <"$MOUNT_TMP/leaks") lines show a secret"
fi
# They were there to be hidden, not lost on the way.
hidden=$(grep -rF -- '***' "$said" | wc -l)
((hidden >= 6)) || fail "only $hidden lines had something to hide"
say "$runs commands, $(find "$said" -type f -exec cat {} + | wc -l) lines, none shows a secret; $hidden had one hidden"
