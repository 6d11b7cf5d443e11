#!/usr/bin/env python3
"""monitoring.py FOLDER ready|all: asks a Prometheus (PROMETHEUS_URL) that scrapes METRICS_URL about the rules and the dashboard
in FOLDER. ready: exit 0 when it has scraped and evaluated each rule; all: names what is wrong, exit 1 when anything is."""

import json
import os
import re
import sys
import urllib.parse
import urllib.request

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PROMETHEUS = os.environ["PROMETHEUS_URL"]
NAME = re.compile(r"\bblobcache_[a-z0-9_]+")


def get(url):
    with OPENER.open(url, timeout=10) as answer:
        return answer.read().decode()


def api(path, **parameters):
    return json.loads(get(f"{PROMETHEUS}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))["data"]


def rules():
    return [rule for group in api("rules")["groups"] for rule in group["rules"]]


def ready():
    try:
        return api("query", query='up{job="blobcache"} == 1')["result"] and all(rule["health"] != "unknown" for rule in rules())
    except OSError:
        return False


def dashboard_queries(folder):
    with open(os.path.join(folder, "blobcache-dashboard.json"), encoding="utf-8") as file:
        board = json.load(file)
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "1m")
            for variable in ("instance", "volume"):
                query = query.replace(f"${variable}", ".*")
            yield panel["title"], query


def main():
    folder, what = sys.argv[1:]
    if what == "ready":
        sys.exit(0 if ready() else 1)
    problems = [f"rule {rule['name']}: {rule['lastError']}" for rule in rules() if rule["health"] != "ok"]
    known = set(re.findall(r"^# TYPE (\S+)", get(os.environ["METRICS_URL"]), re.MULTILINE))
    queries = list(dashboard_queries(folder)) + [(rule["name"], rule["query"]) for rule in rules()]
    answered = 0
    for title, query in queries:
        try:
            answered += bool(api("query", query=query)["result"])
        except OSError as error:
            problems.append(f"{title}: {query}: {error}")
        for name in NAME.findall(query):
            if name not in known and re.sub("_(bucket|sum|count)$", "", name) not in known:
                problems.append(f"{title}: there is no metric {name}")
    # Many panels show something as soon as one file was read.
    if answered < 10:
        problems.append(f"only {answered} of {len(queries)} queries have an answer")
    print("\n".join(problems))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
