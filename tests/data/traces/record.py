#!/usr/bin/env python3
"""Records the offsets that real programs read, as the traces beside it. Needs strace, fio, sqlite3, tar; Linux.

    record.py FOLDER    records every reader whose program is here, in a scratch folder, and writes FOLDER/NAME.trace

More of them with torch (a Python that imports it), DuckDB (node, and NODE_PATH where `npm install @duckdb/node-api` put it),
and, as root, gcc, libfuse3-dev and its examples: what is mapped is then recorded at a FUSE server, as the requests that came.

A trace is text: `OFFSET BYTES`, or `OFFSET BYTES xCOUNT +STRIDE` for COUNT reads that lie STRIDE apart; # starts a
comment, and the first says where it comes from. `size N` is the size of the file. Mapped files are not seen by strace: of the
synthetic ones the page faults are turned into requests as the kernel does with read_ahead_kb = 128 (mm/filemap.c and
mm/readahead.c of Linux 6.1: a fault reads the 128 KiB around it, or, where the pages before it were read ahead and the
marker is met, the next 128 KiB), which is written into the trace's first line.
"""

import os
import pathlib
import random
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import zipfile

MIB = 1 << 20
TRAINING = pathlib.Path(__file__).resolve().parents[3] / 'bench' / 'training.py'
SERVER = '/usr/share/doc/libfuse3-dev/examples/passthrough.c'
READ_REQUEST = re.compile(r'^read\[\d+\] (\d+) bytes from (\d+) flags', re.M)
READ_AHEAD_KB = 512  # of our mounts
CALL = re.compile(r'^(read|pread64|lseek|openat|close|dup2)\((.*)\)\s+=\s+(-?\d+)')


def reads_of(command, path):
    """(offset, bytes) of each read of path by the command and its children."""
    with tempfile.TemporaryDirectory() as logs:
        # A log a process: in one log their lines cut each other in two.
        subprocess.run(['strace', '-ff', '-o', logs + '/log', '-e', 'trace=openat,read,pread64,lseek,close,dup2',
                        '-s', '0', *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = [line for log in sorted(os.listdir(logs))
                 for line in pathlib.Path(logs, log).read_text().splitlines() + ['close(*']]
    positions = {}
    found = []
    for line in lines:
        if line == 'close(*':
            positions = {}
        match = CALL.match(line)
        if not match or int(match[3]) < 0:
            continue
        name, arguments, result = match[1], match[2], int(match[3])
        descriptor = arguments.split(',')[0]
        if name == 'openat':
            if f'"{path}"' in arguments:
                positions[str(result)] = 0
            else:
                positions.pop(str(result), None)
        elif descriptor not in positions:
            continue
        elif name == 'dup2':
            positions[str(result)] = positions[descriptor]
        elif name == 'close':
            del positions[descriptor]
        elif name == 'lseek':
            positions[descriptor] = result
        elif name == 'pread64' and result > 0:
            found.append((int(arguments.split(',')[-1]), result))
        elif name == 'read' and result > 0:
            found.append((positions[descriptor], result))
            positions[descriptor] += result
    return found


def mapped(faults, size):
    """The requests that page faults lead to."""
    ahead = 128 << 10
    present = set()
    markers = {}
    found = []
    for fault in faults:
        page = fault >> 12
        if page in markers:
            start = markers.pop(page)
            window = (start, min(start + ahead, size))
            marker = start
        elif page not in present:
            start = max(0, (page << 12) - ahead // 2)
            window = (start, min(start + ahead, size))
            marker = window[1] - ahead // 4
        else:
            continue
        if window[0] >= size:
            continue
        pages = [p for p in range(window[0] >> 12, (window[1] + 4095) >> 12) if p not in present]
        if not pages:
            continue
        found.append((pages[0] << 12, min((pages[-1] + 1) << 12, size) - (pages[0] << 12)))
        present.update(pages)
        markers[marker >> 12] = window[1]
    return found


def write(folder, name, origin, size, reads):
    out = [f'# {origin}', f'size {size}']
    at = 0
    while at < len(reads):
        offset, length = reads[at]
        count = 1
        stride = 0
        while at + count < len(reads) and reads[at + count][1] == length:
            step = reads[at + count][0] - reads[at + count - 1][0]
            if count > 1 and step != stride:
                break
            stride = step
            count += 1
        if count < 3:
            count = 1
        out.append(f'{offset} {length}' + (f' x{count} {stride:+d}' if count > 1 else ''))
        at += count
    (pathlib.Path(folder) / f'{name}.trace').write_text('\n'.join(out) + '\n')
    print(f'{name}: {len(reads)} reads, {sum(r[1] for r in reads)} bytes, {len(out)} lines')


def fio(path, *options):
    return reads_of(['fio', '--name=job', f'--filename={path}', '--readonly', '--ioengine=psync', '--thread=0',
                     '--invalidate=0', *options], path)


def record_tools(folder, scratch):
    big = scratch / 'big'
    with open(big, 'wb') as file:
        file.truncate(64 * MIB)
        for offset in range(0, 64 * MIB, 4096):
            os.pwrite(file.fileno(), struct.pack('<Q', offset) + b'\n', offset)
    path, size = str(big), 64 * MIB
    other = tempfile.mkdtemp(dir='/dev/shm')
    write(folder, 'cp', 'cp to another filesystem', size, reads_of(['cp', path, other + '/copy'], path))
    shutil.rmtree(other)
    write(folder, 'dd_1m', 'dd bs=1M', size, reads_of(['dd', f'if={path}', 'of=/dev/null', 'bs=1M'], path))
    write(folder, 'dd_4k_head', 'dd bs=4k count=64: the head of the file, no more', size,
          reads_of(['dd', f'if={path}', 'of=/dev/null', 'bs=4k', 'count=64'], path))
    write(folder, 'fio_seq', 'fio rw=read bs=128k', size, fio(path, '--rw=read', '--bs=128k'))
    write(folder, 'fio_rand', 'fio rw=randread bs=4k io_size=1m', size,
          fio(path, '--rw=randread', '--bs=4k', '--io_size=1m'))
    write(folder, 'fio_stride', 'fio zonemode=strided zonerange=4m zonesize=64k bs=64k', size,
          fio(path, '--rw=read', '--bs=64k', '--zonemode=strided', '--zonerange=4m', '--zonesize=64k',
              '--io_size=1m'))
    write(folder, 'tac', 'tac: backward, each block found by lseek', size, reads_of(['tac', path], path))
    write(folder, 'loader_16', 'synthetic: 16 threads of a loader, a 128k read each of its own 4m in random turns', size,
          interleaved(size))


def interleaved(size):
    """16 threads of a loader that take turns: under strace their order would be that of one CPU."""
    turns = random.Random(1)
    at = [thread * (size // 16) for thread in range(16)]
    found = []
    for _ in range(512):
        thread = turns.randrange(16)
        if at[thread] < (thread + 1) * (size // 16):
            found.append((at[thread], 128 << 10))
            at[thread] += 128 << 10
    return found


def record_archives(folder, scratch):
    members = scratch / 'members'
    members.mkdir()
    sizes = random.Random(2)
    for i in range(150):
        (members / f'{i:06}.jpg').write_bytes(os.urandom(sizes.randrange(20 << 10, 200 << 10)))
        (members / f'{i:06}.cls').write_bytes(b'7')
    archive = scratch / 'shard.tar'
    subprocess.run(['tar', '-C', str(members), '-cf', str(archive), *sorted(os.listdir(members))], check=True)
    path = str(archive)
    write(folder, 'tar_x', 'tar -xf of a shard of 300 members', archive.stat().st_size,
          reads_of(['tar', '-C', tempfile.mkdtemp(dir=scratch), '-xf', path], path))
    write(folder, 'tar_t', 'tar -tf of the same: seeks over the members', archive.stat().st_size,
          reads_of(['tar', '-tf', path], path))

    model = scratch / 'model.pt'
    with zipfile.ZipFile(model, 'w', zipfile.ZIP_STORED) as file:
        file.writestr('archive/data.pkl', os.urandom(9000))
        for i in range(20):
            file.writestr(f'archive/data/{i}', os.urandom(sizes.randrange(MIB // 4, 3 * MIB)))
    program = (f'import zipfile\nz = zipfile.ZipFile({str(model)!r})\nz.read("archive/data.pkl")\n'
               'for i in range(20): z.read(f"archive/data/{i}")')
    write(folder, 'torch_zip', 'torch.load-like: Python zipfile, central directory, then every entry in order',
          model.stat().st_size, reads_of([sys.executable, '-c', program], str(model)))


def missing(name, why):
    print(f'{name}: not recorded: {why}')


def python_with(package):
    """Debian's packages are those of Debian's Python, which need not be the one that runs this."""
    for python in (sys.executable, '/usr/bin/python3'):
        if os.path.exists(python) and subprocess.run([python, '-c', f'import {package}'],
                                                     capture_output=True).returncode == 0:
            return python
    return None


def record_loaders(folder, scratch):
    shards = scratch / 'shards'
    subprocess.run([sys.executable, TRAINING, 'make-shards', shards, '1', str(8 * MIB)], check=True)
    path = str(shards / 'shard-000000.tar')
    write(folder, 'webdataset', 'bench/training.py load-shards: a shard of jpg, cls, json streamed by tarfile "r|*"',
          os.path.getsize(path), reads_of([sys.executable, str(TRAINING), 'load-shards', str(shards)], path))
    python = python_with('torch')
    if python is None:
        return missing('torch_load', 'no Python imports torch')
    path = str(scratch / 'checkpoint.pt')
    subprocess.run([python, TRAINING, 'make-checkpoint', path, str(64 * MIB)], check=True)
    version = subprocess.check_output([python, '-c', 'import torch; print(torch.__version__)'], text=True).strip()
    write(folder, 'torch_load', f'torch.load of what torch.save wrote; torch {version}', os.path.getsize(path),
          reads_of([python, str(TRAINING), 'load-checkpoint', path], path))


def requests_of(command, path):
    """(offset, bytes) of each READ of path, all that the command (a function of it) reads, that reaches a FUSE server."""
    with tempfile.TemporaryDirectory() as place:
        mount = os.path.join(place, 'mount')
        server = os.path.join(place, 'server')
        os.mkdir(mount)
        flags = subprocess.check_output(['pkg-config', '--cflags', '--libs', 'fuse3'], text=True).split()
        subprocess.run(['gcc', '-O2', '-o', server, SERVER, *flags], check=True)
        with open(os.path.join(place, 'log'), 'w+', errors='replace') as log:
            # Its main thread takes the requests one after the other: they are told in the order in which they came.
            process = subprocess.Popen([server, '-d', '-s', '-o', f'modules=subdir,subdir={os.path.dirname(path)},kernel_cache',
                                        mount], stdout=log, stderr=log)
            while process.poll() is None and not os.path.ismount(mount):
                pass
            device = subprocess.check_output(['mountpoint', '-d', mount], text=True).strip()
            pathlib.Path(f'/sys/class/bdi/{device}/read_ahead_kb').write_text(str(READ_AHEAD_KB))
            try:
                subprocess.run(command(os.path.join(mount, os.path.basename(path))), check=True, stdout=subprocess.DEVNULL)
            finally:
                subprocess.run(['umount', mount], check=True)
                process.wait()
            log.seek(0)
            words = log.read()
        words = words[words.index(f'open flags: 0x8000 /{os.path.basename(path)}'):]
    size = os.path.getsize(path)
    return [(int(offset), min(int(length), size - int(offset))) for length, offset in READ_REQUEST.findall(words)]


def record_mapped(folder, scratch):
    if os.geteuid() != 0 or not os.path.exists(SERVER):
        return missing('safetensors_*', f'needs root and {SERVER}')
    model = scratch / 'model'
    subprocess.run([sys.executable, TRAINING, 'make-model', model, '1', str(128 * MIB)], check=True)
    path = str(model / 'model-00001-of-00001.safetensors')
    kernel = '.'.join(os.uname().release.split('.')[:2])
    for name, order, framework in (('safetensors_numpy', 'file', 'numpy'),
                                   ('safetensors_numpy_shuffled', 'shuffled', 'numpy'),
                                   ('safetensors_torch', 'file', 'torch')):
        python = python_with(framework) if framework == 'torch' else sys.executable
        if python is None:
            missing(name, 'no Python imports torch')
            continue
        reads = requests_of(lambda file: [python, str(TRAINING), 'load-model', os.path.dirname(file), f'--order={order}',
                                          f'--framework={framework}'], path)
        write(folder, name, f'recorded at a FUSE server: bench/training.py load-model --order={order} '
              f'--framework={framework}; Linux {kernel}, read_ahead_kb {READ_AHEAD_KB}', os.path.getsize(path), reads)


DUCKDB = """
const { DuckDBInstance } = require('@duckdb/node-api');
(async () => {
  const database = await DuckDBInstance.create(':memory:', { threads: '1' });
  const link = await database.connect();
  await link.run(process.argv[1]);
  const version = await link.runAndReadAll('select version()');
  console.log(version.getRows()[0][0]);
})();
"""


def record_parquet(folder, scratch):
    path = str(scratch / 'table.parquet')
    columns = ', '.join(f'hash(range * 12 + {i}) as c{i}' for i in range(12))
    made = subprocess.run(['node', '-e', DUCKDB, f"copy (select {columns} from range(1000000)) to '{path}' "
                           '(format parquet, compression uncompressed)'], capture_output=True, text=True) \
        if shutil.which('node') else None
    if made is None or made.returncode != 0:
        return missing('parquet_duckdb', 'node does not find @duckdb/node-api')
    scan = f"select sum(c2), sum(c7) from read_parquet('{path}')"
    write(folder, 'parquet_duckdb', f'DuckDB {made.stdout.strip()}: sums of 2 of 12 columns of a parquet file, one thread',
          os.path.getsize(path), reads_of(['node', '-e', DUCKDB, scan], path))


def record_sqlite(folder, scratch):
    path = scratch / 'table.db'
    base = sqlite3.connect(path)
    base.execute('create table t(id integer primary key, k integer, v text)')
    keys = random.Random(3)
    base.executemany('insert into t values(?,?,?)',
                     ((i, keys.randrange(1 << 30), 'x' * 400) for i in range(60000)))
    base.execute('create index i on t(k)')
    base.commit()
    base.close()
    size = path.stat().st_size
    queries = ';'.join(f'select v from t where id={keys.randrange(60000)}' for _ in range(200))
    write(folder, 'sqlite_point', 'sqlite3: 200 look-ups by key', size,
          reads_of(['sqlite3', str(path), queries + ';'], str(path)))
    write(folder, 'sqlite_scan', 'sqlite3: sum over a whole table', size,
          reads_of(['sqlite3', str(path), 'select sum(length(v)) from t;'], str(path)))


def tensors(size):
    """(begin, end) of the tensors of a model of 16 layers: embeddings, then matrices of 1 to 4 MiB and small norms."""
    at, found = 9216, []
    while at + 4 * MIB < size:
        for length in (4 * MIB, MIB, MIB, 8192, 2 * MIB, 8192):
            if at + length > size:
                break
            found.append((at, at + length))
            at += length
    return found


def record_models(folder):
    size = 64 * MIB
    faults = [0] + [p for begin, end in tensors(size) for p in range(begin, end, 4096)]
    write(folder, 'safetensors_mmap_order', 'synthetic: safetensors mapped, header, then all tensors in file order; '
          'faults as 128 KiB requests', size, mapped(faults, size))
    shuffled = tensors(size)
    random.Random(4).shuffle(shuffled)
    faults = [0] + [p for begin, end in shuffled for p in range(begin, end, 4096)]
    write(folder, 'safetensors_mmap_shuffled', 'synthetic: safetensors mapped, header, then the tensors in random '
          'order; faults as 128 KiB requests', size, mapped(faults, size))
    touch = random.Random(5)
    faults = [touch.randrange(size >> 12) << 12 for _ in range(200)]
    write(folder, 'mmap_random', 'synthetic: 200 random pages of a mapped file; faults as 128 KiB requests', size,
          mapped(faults, size))
    # Footer of a parquet file, then of 24 row groups the 2 of 12 column chunks that a query asks for, in reads of 1 MiB
    # at most (as Arrow's readers do without pre-buffering).
    reads = [(768 * MIB - 8, 8), (768 * MIB - 8 - 40000, 40000)]
    group, column = 32 * MIB, 32 * MIB // 12 // 4096 * 4096
    for row_group in range(23):
        for wanted in (2, 7):
            begin = 4 + row_group * group + wanted * column
            end = begin + column
            while begin < end:
                reads.append((begin, min(MIB, end - begin)))
                begin += MIB
    write(folder, 'parquet_columns', 'synthetic: parquet footer, then 2 of 12 columns of every row group', 768 * MIB,
          reads)


def main():
    folder = sys.argv[1]
    with tempfile.TemporaryDirectory() as scratch:
        record_tools(folder, pathlib.Path(scratch))
        record_archives(folder, pathlib.Path(scratch))
        record_sqlite(folder, pathlib.Path(scratch))
        record_loaders(folder, pathlib.Path(scratch))
        record_mapped(folder, pathlib.Path(scratch))
        record_parquet(folder, pathlib.Path(scratch))
    record_models(folder)


if __name__ == '__main__':
    main()
