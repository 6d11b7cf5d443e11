#!/usr/bin/env python3
"""Writes blobcache-dashboard.json, the Grafana dashboard, from the panels below.

  packaging/monitoring/dashboard.py            writes the file beside this program
  packaging/monitoring/dashboard.py --check    fails when the file is not what this program would write

Dashed red lines are the targets that the reference system's operators watch: memory hits above 70 %, disk hits above 20 %,
misses below 10 %, sequential reads above 500 MB/s, median below 5 ms, p99 below 20 ms, memory 40-60 % and disks 60-80 % full.
"""

import json
import os
import sys

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "blobcache-dashboard.json")
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
NODE = 'instance=~"$instance"'
VOLUME = f'{NODE},volume=~"$volume"'
WIDTH, HEIGHT = 8, 7  # of a panel, on Grafana's grid of 24 columns


def quantile(q, metric):
    return f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{{NODE}}}[$__rate_interval])))"


def rate(metric, labels, by=""):
    total = f"sum(rate({metric}{{{labels}}}[$__rate_interval]))"
    return total if not by else total.replace("sum(", f"sum by ({by}) (", 1)


# A row: its title and its panels. A panel: title, unit, [(query, legend)], targets as lines.
ROWS = [
    ("What readers get", [
        ("Read throughput by tier", "Bps", [(rate("blobcache_read_bytes_total", VOLUME, "tier"), "{{tier}}")], [5e8]),
        ("Read latency", "ms", [(quantile(q, "blobcache_fuse_read_latency_ms"), name)
                                for q, name in ((0.5, "p50"), (0.99, "p99"))], [5, 20]),
        ("Reads a second", "ops", [(rate("blobcache_reads_total", NODE), "reads")], []),
        ("Look-up and attribute latency, p99", "ms",
         [(quantile(0.99, "blobcache_fuse_lookup_latency_ms"), "lookup"),
          (quantile(0.99, "blobcache_fuse_getattr_latency_ms"), "getattr")], []),
        ("FUSE requests by kind", "ops", [(rate("blobcache_fuse_request_seconds_count", NODE, "op"), "{{op}}")], []),
        ("Errors answered", "ops", [(rate("blobcache_errors_total", NODE, "code, where"), "{{code}} {{where}}")], []),
    ]),
    ("What the cache does", [
        ("Hits in memory (L0)", "percent", [(f"blobcache_l0_hit_ratio{{{NODE}}}", "{{instance}}")], [70]),
        ("Hits on disk (L1)", "percent", [(f"blobcache_l1_hit_ratio{{{NODE}}}", "{{instance}}")], [20]),
        ("Misses (peers and origin)", "percent", [(f"blobcache_l2_miss_ratio{{{NODE}}}", "{{instance}}")], [10]),
        ("Memory of the cache", "percent", [(f"blobcache_mem_cache_usage_pct{{{NODE}}}", "{{instance}}")], [40, 60]),
        ("Disks of the cache", "percent", [(f"blobcache_disk_cache_usage_pct{{{NODE}}}", "{{instance}}")], [60, 80]),
        ("Evicted", "Bps", [(rate("blobcache_evicted_bytes_total", NODE, "disk"), "{{disk}}")], []),
        ("Prefetched", "Bps", [(rate("blobcache_prefetch_bytes_total", NODE, "outcome"), "{{outcome}}")], []),
        ("Memory of the process", "bytes", [(f"sum by (pool) (blobcache_memory_bytes{{{NODE}}})", "{{pool}}")], []),
        ("Cores busy", "percentunit", [(f"blobcache_reactor_busy_ratio{{{NODE}}}", "{{instance}} core {{core}}")], []),
    ]),
    ("What it costs the origin", [
        ("Bytes from the origin", "Bps", [(rate("blobcache_origin_request_bytes_total", VOLUME, "volume"), "{{volume}}")], []),
        ("Egress saved", "Bps",
         [(f'{rate("blobcache_read_bytes_total", VOLUME)} - {rate("blobcache_origin_request_bytes_total", VOLUME)}', "saved")], []),
        ("Origin latency, p99", "s",
         [(f"histogram_quantile(0.99, sum by (le, volume) (rate(blobcache_origin_request_seconds_bucket{{{VOLUME}}}"
           "[$__rate_interval])))", "{{volume}}")], []),
        ("Origin requests by status", "ops",
         [(rate("blobcache_origin_request_seconds_count", VOLUME, "verb, status"), "{{verb}} {{status}}")], []),
        ("Disk state (0 ok, 1 degraded, 2 down)", "none", [(f"blobcache_disk_state{{{NODE}}}", "{{disk}}")], []),
        ("Corrupt blocks found", "none",
         [(f"sum by (tier) (increase(blobcache_corrupt_blocks_total{{{NODE}}}[1h]))", "{{tier}}")], []),
    ]),
]


def line_panel(number, panel, x, y):
    title, unit, queries, lines = panel
    steps = [{"color": "transparent", "value": None}] + [{"color": "red", "value": value} for value in lines]
    custom = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False,
              "thresholdsStyle": {"mode": "dashed" if lines else "off"}}
    if "by tier" in title or title == "Memory of the process":
        custom["stacking"] = {"mode": "normal"}
    return {
        "id": number, "type": "timeseries", "title": title, "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": custom, "thresholds": {"mode": "absolute", "steps": steps}},
                        "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [{"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": query, "legendFormat": legend}
                    for i, (query, legend) in enumerate(queries)],
    }


def variable(name, query):
    return {"name": name, "type": "query", "datasource": DATASOURCE, "query": {"query": query, "refId": name}, "multi": True,
            "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "refresh": 2, "sort": 1}


def dashboard():
    panels, y = [], 0
    for title, row in ROWS:
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})
        y += 1
        for i, panel in enumerate(row):
            panels.append(line_panel(len(panels) + 1, panel, (i * WIDTH) % 24, y + i * WIDTH // 24 * HEIGHT))
        y += -(-len(row) * WIDTH // 24) * HEIGHT
    return {
        "uid": "blobcache", "title": "blobcache", "tags": ["blobcache"], "schemaVersion": 39, "version": 1, "editable": True,
        "timezone": "browser", "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "graphTooltip": 1,
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}},
            variable("instance", "label_values(blobcache_build_info, instance)"),
            variable("volume", "label_values(blobcache_read_bytes_total, volume)"),
        ]},
        "annotations": {"list": []}, "panels": panels,
    }


def main():
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        with open(FILE, encoding="utf-8") as file:
            if file.read() != text:
                sys.exit(f"{FILE} is not what {sys.argv[0]} writes: run it and commit the file")
        return
    with open(FILE, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
