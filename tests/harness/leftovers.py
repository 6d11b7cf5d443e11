#!/usr/bin/env python3
"""What a test run left behind: mounts below its own folder, processes that carry its mark. Named, then removed.

leftovers.py FOLDER MARK | --self-test: processes get a few seconds to end by themselves (a daemon goes shortly after its unmount).
Exit 0: nothing was left; 1: something was (a line each), and is gone now; 2: something could not be removed.
Nothing is touched outside FOLDER, and no process without MARK in its environment that is in no session of a test's folder there
(sessions.py; guard.py of the mount tests removes that folder unless it was killed).
"""

import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import sessions  # noqa: E402

GRACE_S = 10


def mounts_below(folder):
    """(mount point, device "major:minor", filesystem type) below the folder, innermost last mounted first."""
    found = []
    for line in pathlib.Path('/proc/self/mountinfo').read_bytes().splitlines():
        fields = line.split(b' ')
        point = fields[4].decode('unicode_escape').encode('latin-1')
        if point.startswith(os.fsencode(folder) + b'/'):
            found.append((point, fields[2].decode(), fields[fields.index(b'-') + 1].decode()))
    return found[::-1]


def ancestors():
    found = set()
    pid = os.getpid()
    while pid > 0:
        found.add(pid)
        stat = pathlib.Path(f'/proc/{pid}/stat').read_text(errors='replace')
        pid = int(stat.rpartition(')')[2].split()[1])
    return found


def own_processes(top, mark):
    """pid -> command line of the live processes with BLOBTEST_RUN=mark in their environment or of a session of a test's folder."""
    wanted = os.fsencode('BLOBTEST_RUN=' + mark)
    found = {}
    in_sessions = set()
    for record in pathlib.Path(top).glob(f'*/{sessions.NAME}'):
        in_sessions.update(sessions.members(record.parent))
    for folder in pathlib.Path('/proc').iterdir():
        if not folder.name.isdigit() or int(folder.name) in ANCESTORS:
            continue
        try:
            if int(folder.name) in in_sessions or wanted in (folder / 'environ').read_bytes().split(b'\0'):
                found[int(folder.name)] = (folder / 'cmdline').read_bytes().replace(b'\0', b' ').decode(errors='replace')
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


def wait_for_end(folder, mark, seconds):
    """Returns the run's processes that have not ended after this time; waits on the processes themselves."""
    deadline = time.monotonic() + seconds
    while True:
        processes = own_processes(folder, mark)
        left_s = deadline - time.monotonic()
        if not processes or left_s <= 0:
            return processes
        try:
            descriptor = os.pidfd_open(next(iter(processes)))
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(left_s * 1000)
        finally:
            os.close(descriptor)


def remove_mount(point, device, kind):
    if kind.startswith('fuse'):
        # A dead or hung server would keep its callers in the kernel: the abort frees them.
        abort = pathlib.Path(f'/sys/fs/fuse/connections/{device.split(":")[1]}/abort')
        try:
            abort.write_text('1')
        except OSError:
            pass
    for command in (['umount', '-l'], ['fusermount3', '-uz']):
        try:
            if subprocess.run([*command, point], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return
        except FileNotFoundError:
            continue


def clean(folder, mark, grace_s):
    processes = wait_for_end(folder, mark, grace_s)
    mounts = mounts_below(folder)
    for point, device, kind in mounts:
        print(f'left behind: a mount of type {kind} at {os.fsdecode(point)}')
        remove_mount(point, device, kind)
    for pid, command in processes.items():
        print(f'left behind: process {pid}: {command.strip()[:200]}')
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    stuck = wait_for_end(folder, mark, GRACE_S)
    for pid, command in stuck.items():
        print(f'still there after SIGKILL: process {pid}: {command.strip()[:200]}')
    for point, _, _ in mounts_below(folder):
        print(f'still mounted: {os.fsdecode(point)}')
    if stuck or mounts_below(folder):
        return 2
    return 1 if mounts or processes else 0


def self_test():
    """A process and (as root) a mount are found and removed; nothing is found where nothing was left."""
    with tempfile.TemporaryDirectory() as folder:
        mark = os.path.basename(folder) + '-self-test'
        assert clean(folder, mark, 0) == 0
        environment = {**os.environ, 'BLOBTEST_RUN': mark}
        stranger = subprocess.Popen(['cat'], stdin=subprocess.PIPE, env={**environment, 'BLOBTEST_RUN': mark + 'x'})
        left = subprocess.Popen(['sh', '-c', 'echo; read line'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        try:
            left.stdout.readline()  # its environment can be read now: Popen returns while the kernel still makes it
            assert clean(folder, mark, 0) == 1
            assert left.wait(GRACE_S) == -signal.SIGKILL
            assert stranger.poll() is None
        finally:
            stranger.stdin.close()
            stranger.wait(GRACE_S)
        # Without the mark, in the session of a test: ended with its leader, and the leader a zombie then, which is nothing.
        test = os.path.join(folder, 'test')
        os.mkdir(test)
        unmarked = {name: value for name, value in os.environ.items() if name != 'BLOBTEST_RUN'}
        leader = subprocess.Popen(['sh', '-c', 'tail -f /dev/null & echo; wait'], stdout=subprocess.PIPE, env=unmarked,
                                  start_new_session=True)
        sessions.write(test, leader.pid)
        leader.stdout.readline()  # it has its child now
        assert clean(folder, mark, 0) == 1
        assert clean(folder, mark, 0) == 0
        assert leader.wait(GRACE_S) == -signal.SIGKILL
        # A session's number that is somebody else's now.
        stranger = subprocess.Popen(['cat'], stdin=subprocess.PIPE, env=unmarked, start_new_session=True)
        pathlib.Path(test, sessions.NAME).write_text(f'{stranger.pid} 1', encoding='ascii')
        try:
            assert clean(folder, mark, 0) == 0
            assert stranger.poll() is None
        finally:
            stranger.stdin.close()
            stranger.wait(GRACE_S)
        assert clean(folder, mark, 0) == 0
        if os.getuid() != 0:
            print('not tested: removal of a mount that was left behind: only root can mount here')
            return
        point = os.path.join(folder, 'a b')
        os.mkdir(point)
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'self-test', point], check=True)
        assert clean(folder, mark, 0) == 1
        assert mounts_below(folder) == []
    print('self-test passed')


ANCESTORS = ancestors()
if __name__ == '__main__':
    if sys.argv[1:] == ['--self-test']:
        self_test()
    else:
        try:
            sys.exit(clean(sys.argv[1], sys.argv[2], GRACE_S))
        except Exception as problem:  # unknown state: the caller must not delete the folder
            print(f'the clean-up failed: {problem!r}')
            sys.exit(2)
