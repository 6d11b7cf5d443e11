"""The session of a test, by which its processes are known that carry its mark no more.

A program may write over its own environment (nginx does, with its title) or be started without one. It stays in its session,
unless it opens one of its own. FOLDER/session has the session's id and when its leader started: the id comes to somebody
else only when no process of the session is left.
"""
import os

NAME = 'session'


def stat_fields(pid):
    """State, parent... of /proc/PID/stat; empty: there is none."""
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as file:
            return file.read().rpartition(')')[2].split()
    except OSError:
        return []


def started(pid):
    fields = stat_fields(pid)
    return fields[19] if len(fields) > 19 else ''


def write(folder, pid):
    """pid leads a session and has not been waited for."""
    with open(os.path.join(folder, NAME), 'w', encoding='ascii') as file:
        file.write(f'{pid} {started(pid)}\n')


def members(folder):
    """Pids of the living processes of the session that the folder names; none where it names none."""
    try:
        with open(os.path.join(folder, NAME), encoding='ascii') as file:
            session, began = file.read().split()
    except (OSError, ValueError):
        return []
    if started(session) not in ('', began):
        return []
    found = []
    for name in os.listdir('/proc'):
        fields = stat_fields(name) if name.isdigit() else []
        # State, parent, group, session. A zombie has ended, and waits for its parent only.
        if len(fields) > 3 and fields[3] == session and fields[0] not in 'ZX':
            found.append(int(name))
    return found
