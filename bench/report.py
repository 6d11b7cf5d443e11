"""The table on the terminal, the JSON file, and RESULTS.md, which is made from the JSON and never edited by hand."""

import datetime
import json
import os
import platform
import subprocess

from measure import Row, spread

HEADINGS = ["#", "what", "unit", "ours", "baseline", "ratio", "target", "verdict", "notes"]


def facts(repository, command):
    """What a figure depends on and does not show: machine, kernel, commit, date, command."""
    with open("/proc/cpuinfo") as cpuinfo:
        model = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown CPU")
    with open("/proc/meminfo") as meminfo:
        memory_gib = int(meminfo.readline().split()[1]) / (1 << 20)
    def git(*arguments):
        return subprocess.run(["git", "-C", repository, *arguments], capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "meson.build")
    return {
        "machine": f"{model}, {os.cpu_count()} CPUs, {memory_gib:.0f} GiB",
        "kernel": platform.release(),
        "commit": (git("rev-parse", "--short=12", "HEAD") or "none") + ("+changes" if changed else ""),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
    }


def cells(row):
    sign = "≤" if row.at_most else "≥"
    times = " ×" if row.baseline else ""
    target = "-" if row.target is None else f"{sign} {row.target:g}{times}"
    ratio = spread(row.ratios()) if row.baseline else "-"
    return [row.id, row.what, row.unit, spread(row.ours), spread(row.baseline), ratio, target, row.verdict()]


def remarks_of(row):
    return [remark for remark in (row.invalid, row.baseline_name and f"baseline: {row.baseline_name}", row.note) if remark]


def table(rows):
    """Headings and cells, each line with the numbers of its remarks; and the remarks, each once."""
    remarks = list(dict.fromkeys(remark for row in rows for remark in remarks_of(row)))
    lines = [HEADINGS]
    for row in rows:
        numbers = " ".join(f"[{remarks.index(remark) + 1}]" for remark in remarks_of(row))
        lines.append(cells(row) + [numbers])
    return lines, [f"[{number}] {remark}" for number, remark in enumerate(remarks, start=1)]


def text_table(rows):
    lines, remarks = table(rows)
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADINGS))]
    out = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    out.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(out + [""] + remarks)


def load_runs(path):
    if not os.path.exists(path):
        return []
    with open(path) as file:
        return json.load(file)["runs"]


def merge(old_runs, new_run):
    """Keeps the latest figures of each id: a new run replaces every older row with an id that it measured."""
    measured = {row["id"] for row in new_run["rows"]}
    kept = [dict(run, rows=[row for row in run["rows"] if row["id"] not in measured]) for run in old_runs]
    return [new_run] + [run for run in kept if run["rows"]]


def write_json(path, runs):
    with open(path, "w") as file:
        json.dump({"runs": runs}, file, indent=1, ensure_ascii=False)
        file.write("\n")


def row_from_json(saved):
    return Row(**{key: value for key, value in saved.items() if key not in ("verdict", "judged")})


def write_results(path, runs):
    lines = ["# Results", "",
             "Made by `bench/run.py --results` from `results.json`; not edited by hand. Figures are median (min..max) over",
             "alternating pairs; the ratio is formed within each pair, and its median is judged. *short* stays here until it",
             "is met; *invalid* means the run did not measure what it should have.", ""]
    for run in runs:
        rows = [row_from_json(saved) for saved in run["rows"]]
        lines += [f"## {', '.join(dict.fromkeys(row.id for row in rows))}", ""]
        lines += [f"- {name}: " + (f"`{run[name]}`" if name in ("commit", "command") else run[name])
                  for name in ("machine", "kernel", "commit", "date", "command")]
        cells_of_lines, notes = table(rows)
        lines += ["", "| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
        lines += ["| " + " | ".join(line) + " |" for line in cells_of_lines[1:]]
        lines += [""] + [f"- {note}" for note in notes] + [""]
    with open(path, "w") as file:
        file.write("\n".join(lines).rstrip() + "\n")
