#!/usr/bin/env bash
# What packaging/monitoring ships works with a real Prometheus and the metrics of a real mount: it scrapes, every rule is
# evaluated without an error, every query of the dashboard is one, and no query names a metric that is not there.
TEST_DEADLINE_S=80
source "$(dirname -- "$0")/lib.sh"
source "$MOUNT_TESTS/remote_lib.sh"

for program in prometheus promtool; do
  command -v "$program" >/dev/null || nothing_tested "rules and dashboard" "$program is not installed (package prometheus)"
done
monitoring=$MOUNT_TESTS/../../packaging/monitoring
promtool check rules "$monitoring/blobcache.rules.yml" >"$MOUNT_TMP/rules" 2>&1 || fail "rules: $(cat "$MOUNT_TMP/rules")"
promtool test rules "$MOUNT_TESTS/monitoring_rules_test.yml" >"$MOUNT_TMP/rules" 2>&1 || fail "alerts: $(cat "$MOUNT_TMP/rules")"

mnt=$MOUNT_TMP/mnt
tree=$MOUNT_TMP/source
port=$(free_port)
mkdir -p "$tree"
head -c 3000000 /dev/urandom >"$tree/file"
MODE_CORES=1
MODE_TRANSPORT=$(first_transport)
start_mount "$tree" "$mnt" --cache-dir="$MOUNT_TMP/cache" --cache-size=100MiB -o "http.listen=127.0.0.1:$port"
cmp "$tree/file" "$mnt/file" || fail "bytes"

cat >"$MOUNT_TMP/prometheus.yml" <<YAML
global: {scrape_interval: 500ms, evaluation_interval: 500ms}
rule_files: ["$(realpath "$monitoring")/blobcache.rules.yml"]
scrape_configs: [{job_name: blobcache, static_configs: [{targets: ["127.0.0.1:$port"]}]}]
YAML
prometheus_port=$(free_port)
prometheus --config.file="$MOUNT_TMP/prometheus.yml" --storage.tsdb.path="$MOUNT_TMP/tsdb" \
  --web.listen-address="127.0.0.1:$prometheus_port" --log.level=warn >"$MOUNT_TMP/prometheus.log" 2>&1 &
prometheus=$!
trap 'kill "$prometheus" 2>/dev/null || true' EXIT

export METRICS_URL=http://127.0.0.1:$port/metrics PROMETHEUS_URL=http://127.0.0.1:$prometheus_port
check() { "$PYTHON" "$MOUNT_TESTS/monitoring.py" "$monitoring" "$@"; }
wait_for 30 "a scrape and an evaluation of every rule" check ready
check all || fail "$(tail -n 3 "$MOUNT_TMP/prometheus.log")"
kill "$prometheus"
wait "$prometheus" 2>/dev/null || true
stop_mount "$mnt"
