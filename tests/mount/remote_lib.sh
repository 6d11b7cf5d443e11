# shellcheck shell=bash
# What tests with a server in place of a directory stand on. Sourced after lib.sh.

free_port() {
  "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start_s3: a real S3 server of the distribution's packages, with the bucket "blobs"; S3_* say where and how.
start_s3() {
  local line
  S3_DIR=$MOUNT_TMP/s3
  "$MOUNT_TESTS/../s3server/s3-server" start "$S3_DIR" "$(free_port)" >"$MOUNT_TMP/s3.env" 2>"$MOUNT_TMP/s3.log" ||
    nothing_tested "S3" "no server could be started: $(tail -n 1 "$MOUNT_TMP/s3.log")"
  while read -r line; do export "${line?}"; done <"$MOUNT_TMP/s3.env"
  trap stop_remote EXIT
  printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$S3_ACCESS_KEY" "$S3_SECRET_KEY" \
    >"$MOUNT_TMP/keys"
  DAEMON_LOG=$MOUNT_TMP/daemon.log
  S3_OPTIONS=(-o "volume.s3.endpoint=$S3_ENDPOINT" -o "volume.s3.credentials=$MOUNT_TMP/keys" -o volume.revalidate=0s
    -o "log.file=$DAEMON_LOG")
}

stop_remote() {
  if [[ -n ${PROXY_PID:-} ]]; then
    kill "$PROXY_PID" 2>/dev/null || true
    wait "$PROXY_PID" 2>/dev/null || true
  fi
  "$MOUNT_TESTS/../s3server/s3-server" stop "$S3_DIR"
}

s3() { "$PYTHON" "$MOUNT_TESTS/../s3server/s3_client.py" "$@"; }

# start_proxy PORT: the fault proxy in front of a server; PROXY_PORT.
start_proxy() {
  rm -f "$MOUNT_TMP/proxy.port"
  "$PYTHON" "$MOUNT_TESTS/../faults/proxy.py" "$1" "$MOUNT_TMP/proxy.port" >"$MOUNT_TMP/proxy.log" 2>&1 &
  PROXY_PID=$!
  wait_for 20 "the fault proxy" test -s "$MOUNT_TMP/proxy.port"
  PROXY_PORT=$(<"$MOUNT_TMP/proxy.port")
}

faults() { curl -fsS --noproxy '*' "http://127.0.0.1:$PROXY_PORT/__faults__?$1" >/dev/null; }

# count NAME: of the proxy, since the faults were set.
count() {
  curl -fsS --noproxy '*' "http://127.0.0.1:$PROXY_PORT/__counts__" |
    "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

# expect_same_bytes DIRECTORY DIRECTORY: names, types, sizes and bytes; owners, modes and times are the volume's.
expect_same_bytes() {
  "$PYTHON" - "$1" "$2" <<'PYTHON' || fail "$2 differs from $1"
import hashlib, os, sys

def content(root):
    found = {}
    root = os.fsencode(root)
    for folder, folders, names in os.walk(root, onerror=lambda error: sys.exit(str(error))):
        for name in folders:
            found[os.path.relpath(os.path.join(folder, name), root)] = "directory"
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[os.path.relpath(path, root)] = (os.stat(path).st_size, digest)
    return found

wanted, got = map(content, sys.argv[1:])
for key in sorted(wanted.keys() | got.keys()):
    if wanted.get(key) != got.get(key):
        sys.exit(f"{key!r}: {wanted.get(key)} in the source, {got.get(key)} in the mount")
PYTHON
}

# origin_status EXPRESSION: of `origin`, what the daemon of $mnt says of its volume's origin, in Python.
origin_status() {
  "$PYTHON" - "$mnt" "$1" <<'PYTHON'
import glob, json, socket, sys
mount, expression = sys.argv[1:]
for path in glob.glob("/run/blobcache/*.sock"):
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(20)
        try:
            link.connect(path)
        except OSError:
            continue  # of a daemon that is gone
        link.sendall(b"status\n")
        answer = b"".join(iter(lambda: link.recv(65536), b""))
    node = json.loads(answer)
    if node["volumes"][0]["mountpoint"] == mount:
        origin = node["origins"][0]
        print(eval(expression))
        sys.exit(0)
sys.exit(f"no daemon tells of {mount}")
PYTHON
}

# install_nginx: without its service being started, where the machine has none that must not be.
install_nginx() {
  command -v nginx >/dev/null && return 0
  local policy=/usr/sbin/policy-rc.d made=0
  command -v apt-get >/dev/null || nothing_tested "HTTP" "nginx is not installed"
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=1
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx-light >/dev/null 2>&1 || true
  ((made == 0)) || rm -f "$policy"
  command -v nginx >/dev/null || nothing_tested "HTTP" "nginx could not be installed"
}

# nginx_conf: writes nginx's configuration; what is particular to a test, in the context `http`, comes from stdin.
nginx_conf() {
  mkdir -p "$MOUNT_TMP/nginx"
  chmod 755 "$MOUNT_TMP" "$tree"
  {
    cat <<CONF
user root;
worker_processes 1;
daemon off;
pid $MOUNT_TMP/nginx/pid;
error_log $MOUNT_TMP/nginx/error;
events { worker_connections 256; }
http {
  access_log $MOUNT_TMP/nginx/access;
  client_body_temp_path $MOUNT_TMP/nginx/body;
  proxy_temp_path $MOUNT_TMP/nginx/proxy;
  fastcgi_temp_path $MOUNT_TMP/nginx/fastcgi;
  uwsgi_temp_path $MOUNT_TMP/nginx/uwsgi;
  scgi_temp_path $MOUNT_TMP/nginx/scgi;
CONF
    cat
    printf '}\n'
  } >"$MOUNT_TMP/nginx/conf"
}

# run_nginx: with what nginx_conf wrote. NGINX_PID; the caller ends it.
run_nginx() {
  nginx -c "$MOUNT_TMP/nginx/conf" -p "$MOUNT_TMP/nginx" 2>"$MOUNT_TMP/nginx/start" &
  NGINX_PID=$!
}

# start_tree_server PORT TREE: nginx over TREE, with listings. NGINX_PID; the caller ends it.
start_tree_server() {
  nginx_conf <<CONF
  server {
    listen 127.0.0.1:$1;
    location / { alias $2/; autoindex on; autoindex_format json; }
  }
CONF
  run_nginx
}

# start_generated_s3 COUNT: the bucket "blobs" of generated_s3.py; GENERATED_OPTIONS mount it, as s3://blobs.
start_generated_s3() {
  "$PYTHON" "$MOUNT_TESTS/../s3server/generated_s3.py" "$1" "$MOUNT_TMP/generated.port" 2>"$MOUNT_TMP/generated.log" &
  GENERATED_PID=$!
  trap 'kill "$GENERATED_PID" 2>/dev/null; wait "$GENERATED_PID" || true' EXIT
  wait_for 20 "the server of generated keys" test -s "$MOUNT_TMP/generated.port"
  GENERATED_URL=http://127.0.0.1:$(<"$MOUNT_TMP/generated.port")
  DAEMON_LOG=$MOUNT_TMP/daemon.log
  GENERATED_OPTIONS=(-o "volume.s3.endpoint=$GENERATED_URL" -o volume.s3.credentials=anonymous -o "log.file=$DAEMON_LOG")
}

generated_reset() { curl -fsS --noproxy '*' "$GENERATED_URL/__reset__"; }

# generated_count KIND: requests since the reset: list (a directory), list_all (no delimiter), head, get.
generated_count() {
  curl -fsS --noproxy '*' "$GENERATED_URL/__counts__" |
    "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"
}

# start_manager SOCKET FILE: what a service manager hears goes to FILE, a line for each datagram. MANAGER_PID; the caller ends it.
start_manager() {
  "$PYTHON" - "$1" "$2" <<'PYTHON' &
import socket, sys
path, told = sys.argv[1:]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link, open(told, "w") as out:
    link.bind(path)
    while True:
        out.write(link.recv(4096).decode().strip().replace("\n", " ") + "\n")
        out.flush()
PYTHON
  MANAGER_PID=$!
  wait_for 20 "the listener" test -S "$1"
}
