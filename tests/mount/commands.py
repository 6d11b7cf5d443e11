"""Runs every command as a program and as a person would. usage: commands.py BLOBCACHE MOUNTPOINT EMPTY-FILE

A schema is written as an example: a value stands for its type, [x] for a list of x, {"*": x} for an object of x under any name,
None for "may be null" in a pair (x, None). Members may be more than the schema's, never fewer."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

BINARY, MOUNT, EMPTY = sys.argv[1:]
FILE, FOLDER = f"{MOUNT}/folder/file", f"{MOUNT}/folder"
PATIENCE_S = 60
# Of what is configured on this machine, and where its standard cache would be, it asks nothing.
DOCTOR = ("doctor", f"--config={EMPTY}", f"--cache-dir={os.path.dirname(EMPTY)}/doctor-cache")
ZEROS = "0" * 64

TIER_BYTES = {"memory": 1, "disk": 1, "peer": 1, "origin": 1}
WARM = {"files": 1, "bytes": 1, "read_bytes": 1, "seconds": 1.0, "tiers": {"*": 1}, "failed": [{"file": "", "error": ""}]}
PERCENTILES = {"p50": (1.0, None), "p99": (1.0, None)}
SCHEMAS = {
    "version": {"version": "", "git": "", "compiler": "", "kernel": "", "features": {"*": True}, "max_request_bytes": 1},
    "doctor": {"checks": [{"name": "", "state": "", "detail": "", "remedy": ""}]},
    "config show": {"values": [{"key": "", "value": "", "from": ""}]},
    "stat": {"file": "", "id": "", "size": 1, "source": "", "version": "", "tiers": {"*": 1}, "path": ("", None),
             "passthrough": True},
    "warm": WARM,
    "warm --check": WARM,
    "put": {"id": "", "bytes": 1, "known": True},
    "has": {"id": "", "found": True, "bytes": 1, "pinned": True},
    "has nothing": {"id": "", "found": True},
    "status": {
        "pid": 1, "node": "", "version": "", "cores": 1, "memory_limit": 1,
        "tiers": {"memory": {"arena": 1, "used": 1, "chunk_frames": 1, "block_frames": 1, "pinned_frames": 1, "evicted_bytes": 1},
                  "disk": {"used": 1, "limit": 1, "objects": 1, "index_bytes": 1,
                           "disks": [{"path": "", "state": "", "why": "", "used": 1, "limit": 1, "evicted_bytes": 1,
                                      "written_bytes": 1, "read_errors": 1, "write_errors": 1, "corrupt_blocks": 1}]}},
        "content_store": ({"limit": 1, "used": 1, "reserved": 1, "blobs": 1, "blobs_max": 1, "uploads": 1, "set_aside": 1}, None),
        "volumes": [{"name": "", "source": "", "mountpoint": "", "transport": "", "passthrough": True, "open": 1, "nodes": 1,
                     "nodes_max": 1, "requests": 1, "reads": 1, "errors": 1, "bytes": TIER_BYTES, "replies": TIER_BYTES,
                     "read_latency_ns": [[(1, None)]], "slow": [{"operation": "", "file": "", "age_s": 1, "total_ms": 1}],
                     "prefetch": {"*": 1}}],
        "origins": [{"volume": "", "requests": 1, "bytes": 1, "retries": 1, "throttled": 1, "errors": 1,
                     "first_byte_us": {"p50": 1, "p95": 1, "p99": 1}}]},
    "top": {"seconds": 1.0, "reads_per_s": 1.0, "bytes_per_s": 1.0, "errors_per_s": 1.0, "read_latency_us": PERCENTILES,
            "tiers": [{"name": "", "hit_ratio": (1.0, None), "bytes_per_s": 1.0}], "disks": [{"state": "", "limit": 1}],
            "volumes": [{"mountpoint": ""}], "slow": [{"file": ""}]},
}


def check(condition, what):
    if not condition:
        sys.exit(f"commands: {what}")


def expect(schema, value, place):
    if isinstance(schema, tuple):
        return value is None or expect(schema[0], value, place)
    if isinstance(schema, dict):
        check(isinstance(value, dict), f"{place} is {value!r}, no object")
        for name, each in schema.items():
            if name == "*":
                for key, inner in value.items():
                    expect(each, inner, f"{place}.{key}")
            else:
                check(name in value, f"{place} has no {name}: {sorted(value)}")
                expect(each, value[name], f"{place}.{name}")
        return None
    if isinstance(schema, list):
        check(isinstance(value, list), f"{place} is {value!r}, no list")
        for number, each in enumerate(value):
            expect(schema[0], each, f"{place}[{number}]")
        return None
    numbers = (int, float) if isinstance(schema, float) else int
    wanted = bool if isinstance(schema, bool) else numbers if isinstance(schema, (int, float)) else str
    check(isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)), f"{place} is {value!r}, not {wanted}")
    return None


def run(*arguments, codes=(0,), **options):
    done = subprocess.run([BINARY, *arguments], capture_output=True, timeout=PATIENCE_S, **options)
    check(done.returncode in codes, f"{arguments} ended with {done.returncode}: {done.stderr.decode()}")
    check(b"\033" not in done.stdout, f"{arguments}: sequences of a terminal in a pipe")
    return done.stdout.decode()


def as_json(name, *arguments, **options):
    text = run(*arguments, **options)
    check(text.endswith("\n"), f"{name}: no end of the line")
    value = json.loads(text)
    expect(SCHEMAS[name], value, name)
    checked.add(arguments[0] if arguments[0] != "config" else "config show")
    return value


def has_json():
    """Commands whose help names --json."""
    lines = run("--help").split("Commands:\n")[1].split("\n\n")[0].splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    check(len(names) >= 14, f"only {names} are listed")
    names = [name for name in names if name != "config"] + ["config check", "config show", "config reference"]
    return {name for name in names if re.search(r"^ +--json\b", run(*name.split(), "--help"), re.M)}


def programs_read():
    node = f"--node={MOUNT}"
    as_json("version", "version", "--json")
    as_json("doctor", *DOCTOR, "--json", codes=(0, 3))
    values = as_json("config show", "config", "show", f"--config={EMPTY}", "-o", "log.level=warn", "--json")["values"]
    shown = {each["key"]: (each["value"], each["from"]) for each in values}
    check(shown["log.level"][0] == "warn" and shown["log.level"][1] != "default", str(shown["log.level"]))
    check(shown["node.cores"] == ("auto", "default"), str(shown["node.cores"]))
    check(len(shown) == len(values), "a key is there twice")
    warmed = as_json("warm", "warm", "--json", MOUNT)
    check(warmed["files"] == 2 and warmed["bytes"] == 3_001_000 == warmed["read_bytes"] and not warmed["failed"], str(warmed))
    known = as_json("warm --check", "warm", "--check", "--json", FOLDER)
    check(known["files"] == 1 and known["read_bytes"] == 0 and sum(known["tiers"].values()) >= 3_000_000, str(known))
    seen = as_json("stat", "stat", "--json", FILE)
    check(seen["file"] == FILE and seen["size"] == 3_000_000 and re.fullmatch("[0-9a-f]{32}", seen["id"]), str(seen))
    put = as_json("put", "put", node, "--json", "-", input=b"a known text")
    check(put["bytes"] == 12 and put["known"] is False, str(put))
    check(as_json("has", "has", node, "--json", put["id"])["bytes"] == 12, "has does not know what was put")
    check(as_json("has nothing", "has", node, "--json", ZEROS, codes=(1,))["found"] is False, "has knows nothing")
    status = as_json("status", "status", node, "--json")
    check(status["volumes"][0]["mountpoint"] == MOUNT and status["content_store"]["blobs"] == 1, str(status["content_store"]))
    as_json("top", "top", node, "--once", "--json", "--interval=100ms")
    missing = has_json() - checked
    check(not missing, f"--json of {sorted(missing)} is in no schema")
    check({"status", "stat", "version", "doctor", "warm", "top", "config show", "has", "put"} <= checked, str(checked))


def on_terminal(columns, *arguments):
    """What it writes to a terminal of that width, sequences taken out."""
    pid, master = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.read(0, 1)  # until the size is set
        os.execv(BINARY, [BINARY, *arguments])
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    settings = termios.tcgetattr(master)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(master, termios.TCSANOW, settings)
    os.write(master, b"\n")
    output = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        output += part
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    check(code in ((0, 3) if arguments[0] == "doctor" else (0,)), f"{arguments} on a terminal ended with {code}")
    text = re.sub(r"\033\[[0-9;?]*[a-zA-Z]", "", output.decode())
    return [line for each in text.replace("\r\n", "\n").split("\n") for line in each.split("\r")]


def people_read():
    node = f"--node={MOUNT}"
    wanted = {("status", node): r"^node .* pid [0-9]+", ("stat", FILE): r"^object +[0-9a-f]{32}$", DOCTOR: r"^kernel +ok",
              ("warm", MOUNT): r"^2 files, 2\.86 MiB", ("warm", "--check", MOUNT): r"^memory +[0-9]+ +[0-9.]+%$",
              ("version",): r"^blobcache [0-9.]+"}
    for arguments, pattern in wanted.items():
        for columns in (80, 200):
            lines = on_terminal(columns, *arguments)
            check(any(re.search(pattern, line) for line in lines), f"{arguments}: no {pattern!r} in {lines}")
            for line in lines:
                check(line.isprintable(), f"{arguments}: {line!r}")
                # What a disk can do is one line of numbers, as a remedy is one of words.
                # Half of a path is of use to nobody: a line may be longer by its paths and ids, and for nothing else.
                rest = " ".join(word for word in line.split() if len(word) <= 30)
                check(len(line) <= columns or (arguments[0] in ("status", "stat") and len(rest) <= columns)
                      or line.startswith(("passthrough no: ", "disk ")), f"{arguments}: {len(line)} of {columns} columns: {line}")


checked = set()
programs_read()
people_read()
