#!/usr/bin/env bash
# Programs run from a mount as from a directory: Python with the mounted library, a compiler with the mounted headers,
# git on a mounted repository, SQLite on a mounted database, a program executed from the mount.
TEST_DEADLINE_S=180
source "$(dirname -- "$0")/lib.sh"

source_dir=$MOUNT_TMP/source
mnt=$MOUNT_TMP/mnt
mkdir -p "$source_dir"
library=$("$PYTHON" -c 'import os; print(os.path.dirname(os.__file__))')
cp -a -- "$library" "$source_dir/library"
cp -a -- /usr/include "$source_dir/include"
cp -aL -- "$(command -v sqlite3 || command -v ls)" "$source_dir/program"

git=(git -c user.name=tester -c user.email=tester@example.com -c safe.directory='*' -c gc.auto=0)
"${git[@]}" init -q "$source_dir/repository"
for number in $(seq 40); do
  seq "$number" $((number * 100)) >"$source_dir/repository/file-$((number % 7))"
  "${git[@]}" -C "$source_dir/repository" add .
  "${git[@]}" -C "$source_dir/repository" commit -qm "commit $number"
done
"${git[@]}" -C "$source_dir/repository" repack -adq
"$PYTHON" - "$source_dir/database" <<'PYTHON'
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("create table squares (number integer primary key, square integer, filler text)")
database.executemany("insert into squares values (?, ?, ?)", ((n, n * n, "f" * (n % 300)) for n in range(60000)))
database.execute("create index by_square on squares (square)")
database.commit()
PYTHON

sqlite_query() {
  "$PYTHON" - "$1" <<'PYTHON'
import sqlite3, sys
database = sqlite3.connect(f"file:{sys.argv[1]}?immutable=1&mode=ro", uri=True)
print(database.execute("pragma integrity_check").fetchone())
print(database.execute("select sum(square), sum(length(filler)) from squares").fetchone())
print([database.execute("select number from squares where square = ?", (n * n,)).fetchone() for n in range(0, 60000, 997)])
PYTHON
}

python_import() {
  # -S and -I: nothing but the mounted library; it says itself where each module came from.
  "$PYTHON" -I -S - "$1" <<'PYTHON'
import sys
mounted = sys.argv[1]
sys.path[:] = [mounted, mounted + "/lib-dynload"]
import json, decimal, email.message, xml.dom.minidom, unittest, asyncio, http.client
print(json.dumps({"a": [1, 2.5, None]}), decimal.Decimal("1.1") + 1)
assert all(m.__file__.startswith(mounted) for m in (email.message, xml.dom.minidom, unittest, http.client)), "not from the mount"
PYTHON
}

compile_headers() {
  printf '%s\n' '#include <linux/fuse.h>' '#include <stdio.h>' '#include <sys/stat.h>' \
    'int main(void) { printf("%d\n", (int)sizeof(struct fuse_in_header)); return 0; }' >"$MOUNT_TMP/program.c"
  gcc -H -nostdinc -isystem "$1/include" -isystem "$1/include/x86_64-linux-gnu" \
    -isystem "$(gcc -print-file-name=include)" -o "$MOUNT_TMP/program" "$MOUNT_TMP/program.c" 2>"$MOUNT_TMP/headers" ||
    fail "compile: $(tail -n 5 "$MOUNT_TMP/headers")"
  grep -q "$1/include/linux/fuse.h" "$MOUNT_TMP/headers" || fail "the headers did not come from the mount"
  "$MOUNT_TMP/program"
}

check() {
  start_mount "$source_dir" "$mnt"
  python_import "$mnt/library"
  if [[ -d /usr/include/x86_64-linux-gnu ]]; then
    [[ $(compile_headers "$mnt") == 40 ]] || fail "the compiled program is wrong"
  else
    not_tested "a compile with mounted headers" "this machine keeps its headers elsewhere"
  fi
  "${git[@]}" -C "$source_dir/repository" log --stat >"$MOUNT_TMP/log.wanted"
  "${git[@]}" -C "$mnt/repository" log --stat >"$MOUNT_TMP/log.got"
  cmp "$MOUNT_TMP/log.wanted" "$MOUNT_TMP/log.got" || fail "git log"
  "${git[@]}" -C "$mnt/repository" fsck --full --strict || fail "git fsck"
  [[ -z $("${git[@]}" --no-optional-locks -C "$mnt/repository" status --porcelain) ]] || fail "git status sees changes"
  sqlite_query "$source_dir/database" >"$MOUNT_TMP/query.wanted"
  sqlite_query "$mnt/database" >"$MOUNT_TMP/query.got"
  cmp "$MOUNT_TMP/query.wanted" "$MOUNT_TMP/query.got" || fail "the SQLite query"
  "$mnt/program" --version >"$MOUNT_TMP/output" || fail "a program executed from the mount"
  stop_mount "$mnt"
}
with_each_transport check
