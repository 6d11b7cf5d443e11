# shellcheck shell=bash
# What the tests of metrics share: a number before, a known amount of work, the same number after. Sourced after
# lib.sh. Which test proves which metric stands in metrics.list; tests/lint/metrics_tested.py compares it with the table.

METRICS_PORT=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
METRICS_OPTIONS=(-o "http.listen=127.0.0.1:$METRICS_PORT" -o volume.name=test)

scrape() { curl -fsS --noproxy '*' --max-time 20 "http://127.0.0.1:$METRICS_PORT/metrics" >"$1"; }

measure() { # COMMAND...: before and after it
  scrape "$MOUNT_TMP/before"
  "$@"
  scrape "$MOUNT_TMP/after"
}

# moved NAME: by how much a metric grew between `before` and `after`; labels and all, as it is written there. What is not there
# yet is 0.
moved() {
  "$PYTHON" - "$MOUNT_TMP/before" "$MOUNT_TMP/after" "$1" <<'PYTHON'
import sys
def value(path):
    lines = dict(line.rsplit(" ", 1) for line in open(path) if not line.startswith("#"))
    return float(lines.get(sys.argv[3], 0))
print(int(value(sys.argv[2]) - value(sys.argv[1])))
PYTHON
}
# moved_all NAME: the same, of all its labels together.
moved_all() {
  "$PYTHON" - "$MOUNT_TMP/before" "$MOUNT_TMP/after" "$1" <<'PYTHON'
import sys
def value(path):
    return sum(float(line.rsplit(" ", 1)[1]) for line in open(path) if line.startswith((sys.argv[3] + "{", sys.argv[3] + " ")))
print(int(value(sys.argv[2]) - value(sys.argv[1])))
PYTHON
}
expect_moved() { # NAME AMOUNT
  local got
  got=$(moved "$1")
  [[ $got == "$2" ]] || fail "$1 moved by $got, not by $2"
}
expect_moved_all() { # NAME AMOUNT
  local got
  got=$(moved_all "$1")
  [[ $got == "$2" ]] || fail "$1, all labels together, moved by $got, not by $2"
}
value() { sed -n "s|^$1 ||p" "$MOUNT_TMP/after"; } # NAME, as a pattern
expect_value() { # NAME (as a pattern) VALUE
  local got
  got=$(value "$1")
  [[ $got == "$2" ]] || fail "$1 is $got, not $2"
}
# expect_true EXPRESSION: in Python; v(NAME, labels as they are written) is a value of `after`, 0 where there is none, every(NAME)
# those of all its labels.
expect_true() {
  "$PYTHON" - "$MOUNT_TMP/after" "$1" <<'PYTHON' || fail "not so: $1"
import sys
lines = dict(line.rsplit(" ", 1) for line in open(sys.argv[1]) if not line.startswith("#"))
def v(name): return float(lines.get(name, 0))
def every(name): return [float(each) for line, each in lines.items() if line.startswith((name + "{", name + " ")) or line == name]
if not eval(sys.argv[2]):
    print(*(line for line in lines.items()), sep="\n", file=sys.stderr)
    sys.exit(1)
PYTHON
}
# until_moved NAME AMOUNT: `after` is taken again until it has (what a helper thread counts a moment later).
until_moved() {
  has_moved() { scrape "$MOUNT_TMP/after" && [[ $(moved "$1") == "$2" ]]; }
  wait_for 20 "$1 to move by $2" has_moved "$1" "$2"
}
