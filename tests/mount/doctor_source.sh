#!/usr/bin/env bash
# What `doctor SOURCE` says of buckets and web servers: nothing against a good one, and for each thing that can be wrong one
# line that names it, with the remedy, and exit 3. And of the volumes of a file, each with its own endpoint, credentials and
# certificates, by name or all of them.
TEST_DEADLINE_S=180
source "$(dirname -- "$0")/lib.sh"
source "$(dirname -- "$0")/remote_lib.sh"

tree=$MOUNT_TMP/tree

# expect_finding NAME STATE PATTERN ARGUMENT...: the line of that name; the exit status that goes with it.
expect_finding() {
  local name=$1 state=$2 pattern=$3 status=0 lines
  shift 3
  [[ $state != missing ]] || status=3
  expect_status "$status" "$BLOBCACHE" doctor "$@"
  lines=$(grep -E "^$name +$state " "$MOUNT_TMP/output") || fail "no line \"$name $state\": $* ($(<"$MOUNT_TMP/output"))"
  [[ $lines != *$'\n'* ]] && grep -qE -- "$pattern" <<<"$lines" || fail "not /$pattern/: $lines"
  # What is wrong is said once.
  [[ $(grep -cE '^[^ ]+ +missing ' "$MOUNT_TMP/output") == $((status / 3)) ]] || fail "more than one line: $*"
  say "found: $lines"
}

# Answers of S3 that a good server cannot be brought to, and web servers with something missing.
start_nginx() {
  PORT=$(free_port)
  nginx_conf <<CONF
  server {
    listen 127.0.0.1:$PORT;
    location /good/ { alias $tree/; autoindex on; autoindex_format json; }
    location /unlisted/ { alias $tree/; }
    location /whole/ { alias $tree/; autoindex on; max_ranges 0; }
    location /unversioned/ { alias $tree/; autoindex on; etag off; add_header Last-Modified ""; }
    location /page/ { return 200 "<html>hello</html>"; }
    location /locked/ { return 401; }
    location = /expired { return 400 "<Error><Code>ExpiredToken</Code></Error>"; }
    location = /skewed { return 403 "<Error><Code>RequestTimeTooSkewed</Code></Error>"; }
    location = /elsewhere { add_header x-amz-bucket-region eu-south-9 always; return 301 http://127.0.0.1:$PORT/; }
    location = /denied { return 403 "<Error><Code>AccessDenied</Code></Error>"; }
    location = /unreadable {
      if (\$arg_prefix) { return 200 "<ListBucketResult></ListBucketResult>"; }
      return 200 "<ListBucketResult><Contents><Key>file</Key><Size>5</Size></Contents></ListBucketResult>";
    }
    location /unreadable/ { return 403 "<Error><Code>AccessDenied</Code></Error>"; }
  }
CONF
  run_nginx
  trap 'kill "$NGINX_PID" 2>/dev/null; wait "$NGINX_PID"; stop_remote' EXIT
  wait_for 20 "nginx" curl -fsS --noproxy '*' -o /dev/null "http://127.0.0.1:$PORT/good/"
}

check_bucket() {
  expect_finding source ok 'answers in' s3://blobs "${S3_OPTIONS[@]}"
  grep -qE '^listing +ok +2 names' "$MOUNT_TMP/output" || fail "the listing: $(<"$MOUNT_TMP/output")"
  grep -qE '^read +ok .*deep/er/file' "$MOUNT_TMP/output" || fail "the read: $(<"$MOUNT_TMP/output")"
  ! grep -qF "$S3_SECRET_KEY" "$MOUNT_TMP/output" || fail "the secret is shown"
  "$BLOBCACHE" doctor --json s3://blobs "${S3_OPTIONS[@]}" | "$PYTHON" -c 'import json, sys; json.load(sys.stdin)' ||
    fail "the output is no JSON"
  local wrong=$MOUNT_TMP/wrong keys=(-o "volume.s3.credentials=$MOUNT_TMP/keys")
  sed 's/secret_access_key = ./&x/' "$MOUNT_TMP/keys" >"$wrong"
  expect_finding credentials missing 'secret is wrong.*: correct the access key' s3://blobs "${S3_OPTIONS[@]:0:2}" \
    -o "volume.s3.credentials=$wrong"
  expect_finding bucket missing 'no bucket none.*: check the source' s3://none "${S3_OPTIONS[@]}"
  expect_finding prefix missing 'nothing under s3://blobs/none.*: check the prefix' s3://blobs/none "${S3_OPTIONS[@]}"
  expect_finding connect missing 'cannot reach 127.0.0.1.*: see that the server runs' s3://blobs "${keys[@]}" \
    -o "volume.s3.endpoint=http://127.0.0.1:$(free_port)"
  expect_finding dns missing 'no-such-host.invalid.*resolv.conf' s3://blobs "${keys[@]}" \
    -o volume.s3.endpoint=http://no-such-host.invalid:9000
  expect_finding tls missing 'certificate.*: give .*volume.s3.ca_file' s3://blobs "${keys[@]}" \
    -o "volume.s3.endpoint=$S3_ENDPOINT_TLS"
  expect_finding source ok 'answers in' s3://blobs "${keys[@]}" -o "volume.s3.endpoint=$S3_ENDPOINT_TLS" \
    -o "volume.s3.ca_file=$S3_CA_FILE"
  HOME=$MOUNT_TMP/nobody AWS_EC2_METADATA_DISABLED=true \
    expect_finding credentials missing 'no credentials were found.*AWS_ACCESS_KEY_ID' s3://blobs "${S3_OPTIONS[@]:0:2}"
}

check_answers() {
  local to=(-o "volume.s3.endpoint=http://127.0.0.1:$PORT" -o "volume.s3.credentials=$MOUNT_TMP/keys")
  expect_finding credentials missing 'expired.*: get new credentials' s3://expired "${to[@]}"
  expect_finding clock missing 'clock is wrong.*: set the clock' s3://skewed "${to[@]}"
  expect_finding region missing 'eu-south-9.*: set volume.s3.region' s3://elsewhere "${to[@]}"
  expect_finding rights missing 'denies listing.*: .* need s3:ListBucket' s3://denied "${to[@]}"
  expect_finding rights missing "'file'.*status 403.*: let .*s3:GetObject" s3://unreadable "${to[@]}"
}

check_web() {
  local web=http://127.0.0.1:$PORT
  expect_finding read ok 'deep/er/file' "$web/good/"
  expect_finding listing off 'status 403.*: switch .*autoindex on' "$web/unlisted/"
  expect_finding listing off 'no listing: switch .*autoindex on' "$web/page/"
  expect_finding ranges missing 'deep/er/file.*: let the server answer ranges' "$web/whole/"
  expect_finding etag missing 'no ETag.*: let the server send ETag' "$web/unversioned/"
  expect_finding credentials missing 'asks for a password.*: use a server' "$web/locked/"
  expect_finding connect missing 'cannot reach' "http://127.0.0.1:$(free_port)/"
}

# has_line PATTERN: in what the last doctor said.
has_line() { grep -qE -- "$1" "$MOUNT_TMP/output" || fail "no line /$1/: $(<"$MOUNT_TMP/output")"; }

check_configured() {
  local file=$MOUNT_TMP/volumes.toml
  cat >"$file" <<TOML
[[volume]]
name = "secure"
source = "s3://blobs"
mountpoint = "$MOUNT_TMP/secure"
index = "on"
revalidate = "never"
  [volume.s3]
  endpoint = "$S3_ENDPOINT_TLS"
  ca_file = "$S3_CA_FILE"
  credentials = "$MOUNT_TMP/keys"
[[volume]]
name = "stranger"
source = "s3://blobs/deep"
mountpoint = "$MOUNT_TMP/stranger"
  [volume.s3]
  endpoint = "$S3_ENDPOINT"
  credentials = "$MOUNT_TMP/wrong"
[[volume]]
name = "web"
source = "http://127.0.0.1:$PORT/good/"
mountpoint = "$MOUNT_TMP/web"
[[volume]]
name = "folder"
source = "$tree"
mountpoint = "$MOUNT_TMP/folder"
TOML
  local cache=(--cache-dir="$MOUNT_TMP/doctor-cache")
  # All of them, the good and the bad.
  expect_status 3 "$BLOBCACHE" doctor --config="$file" "${cache[@]}"
  has_line "^source +ok +secure: s3://blobs answers"
  has_line '^read +ok +secure: .*deep/er/file'
  has_line '^credentials +missing +stranger: .*secret is wrong.*: correct the access key'
  has_line '^read +ok +web: .*deep/er/file'
  has_line "^source +ok +folder: $tree answers"
  [[ $(grep -cE '^[^ ]+ +missing ' "$MOUNT_TMP/output") == 1 ]] || fail "more is missing: $(<"$MOUNT_TMP/output")"
  # One of them by its name; that another one is bad is not asked.
  expect_status 0 "$BLOBCACHE" doctor --config="$file" "${cache[@]}" secure
  has_line '^listing +ok +secure: 2 names'
  ! grep -qE 'stranger|web:|folder' "$MOUNT_TMP/output" || fail "others were asked: $(<"$MOUNT_TMP/output")"
  expect_status 3 "$BLOBCACHE" doctor --config="$file" "${cache[@]}" stranger
  has_line '^credentials +missing +stranger: '
  # An option stands above the file, here too.
  expect_status 0 "$BLOBCACHE" doctor --config="$file" "${cache[@]}" secure -o origin.retries=1
  expect_refusal 2 'has no volume nobody; it has: secure, stranger, web, folder' \
    "$BLOBCACHE" doctor --config="$file" nobody
  # What is wrong is the option, not the file: of which volume?
  expect_refusal 2 'volume.s3.region' "$BLOBCACHE" doctor --config="$file" -o volume.s3.region=x
  expect_refusal 2 'volume.s3.region' "$BLOBCACHE" doctor --config="$file" -o volume.s3.region=x secure
  in_usual_place "$file"
  # A source that was given is asked with the options, not with what the file says of others.
  expect_finding read ok 'deep/er/file' --config="$file" "http://127.0.0.1:$PORT/good/"
  printf '[[volume]]\nname = "secure"\nsuorce = "s3://blobs"\n' >"$file"
  expect_status 3 "$BLOBCACHE" doctor --config="$file" "${cache[@]}"
  has_line '^config +missing +.*volumes.toml.*suorce.*: correct it'
}

# in_usual_place FILE: what is not given a path. In a mount namespace of its own, whose /etc is a copy.
in_usual_place() {
  local etc=$MOUNT_TMP/etc inside=$MOUNT_TMP/inside.sh
  cp -a /etc "$etc"
  mkdir -p "$etc/blobcache" "$MOUNT_TMP/here/models"
  printf 'mount --bind "$1" /etc\ncd "$2"\nshift 2\nexec "$@"\n' >"$inside"
  local doctor=(unshare -m --propagation private bash -e "$inside" "$etc" "$MOUNT_TMP/here" "$BLOBCACHE" doctor "${cache[@]}")
  if ! unshare -m --propagation private true 2>/dev/null; then
    not_tested "a configuration in its usual place" "unshare -m is not allowed here"
    return 0
  fi
  cp "$1" "$etc/blobcache/blobcache.toml"
  expect_status 0 "${doctor[@]}" secure
  has_line '^listing +ok +secure: 2 names'
  expect_refusal 2 'volume.s3.region' "${doctor[@]}" -o volume.s3.region=x
  # No volume's name: the directory there, with the options that it was given.
  expect_status 0 "${doctor[@]}" models -o volume.s3.region=x
  has_line '^source +ok +models answers'
  printf '[[volume]]\nname = "models"\nsuorce = "s3://blobs"\n' >"$etc/blobcache/blobcache.toml"
  expect_status 3 "${doctor[@]}" secure
  has_line '^config +missing +/etc/blobcache/blobcache.toml.*suorce.*: correct it'
  ! grep -q '^source' "$MOUNT_TMP/output" || fail "a name that nobody knows is taken for a directory: $(<"$MOUNT_TMP/output")"
  expect_status 3 "${doctor[@]}" models
  has_line '^config +missing +.*suorce'
  has_line '^source +ok +models answers'
  # It has no part in what is no name.
  expect_status 0 "${doctor[@]}" "$tree"
}

mkdir -p "$tree/deep/er"
printf 'nine more' >"$tree/deep/er/file"
printf '' >"$tree/deep/er/empty"
printf '' >"$tree/empty"
find "$tree" -exec touch -d @1700000000 {} +
install_nginx
start_s3
s3 tree blobs '' "$tree"
start_nginx
check_bucket
check_answers
check_web
check_configured
