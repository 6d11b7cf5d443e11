"""What a browser shows of a node, compared with what the node says.

usage: web_page.py CHROMIUM URL shows MOUNT SOURCE VOLUME-NAME ARTEFACTS WISHES
       web_page.py CHROMIUM URL token TOKEN VOLUME-NAME ARTEFACTS"""

import glob
import json
import os
import pathlib
import re
import select
import subprocess
import sys
import tempfile
import time
import urllib.request

from chromium import Chromium, Failure, Page

FILE_BYTES = 4 << 20
READ_BYTES = 64 << 10
SHARDS = 8
PATIENCE_S = 40 * int(os.environ.get("MOUNT_TIME_FACTOR", "1"))
LIVE = "document.querySelector('#live').dataset.state === 'live'"
NOTHING = "\u2013"

# The contrast of each text with what is behind it (WCAG 2, 1.4.3): those that are too faint.
FAINT = """(() => {
  const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = c => c.slice(0, 3).map(channel).reduce((l, v, i) => l + v * [0.2126, 0.7152, 0.0722][i], 0);
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  const faint = [];
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data.trim()).join('');
    if (!text || ['SCRIPT', 'NOSCRIPT', 'STYLE'].includes(element.tagName) || element.getClientRects().length === 0) continue;
    const style = getComputedStyle(element);
    const colours = [parse(element instanceof SVGElement ? style.fill : style.color), behind(element.closest('svg') || element)];
    const [low, high] = colours.map(luminance).sort((a, b) => a - b);
    if ((high + 0.05) / (low + 0.05) < 4.5) faint.push(text + ' ' + ((high + 0.05) / (low + 0.05)).toFixed(2));
  }
  return faint;
})()"""


def check(condition, what):
    if not condition:
        raise Failure(ascii(what))


def status_of(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url + "/v1/status", timeout=20) as answer:
        return json.loads(answer.read().decode())  # as strict as can be: not a byte that is no UTF-8


def read_file(path):
    """Past the page cache."""
    subprocess.run(["dd", b"if=" + os.fsencode(path), "of=/dev/null", f"bs={READ_BYTES}", "iflag=direct", "status=none"], check=True)


def bytes_text(count):
    """As the page writes it."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    i = 0
    while count >= 999.5 and i + 1 < len(units):
        count /= 1024
        i += 1
    return f"{count:.{0 if i == 0 or count >= 99.95 else 1 if count >= 9.995 else 2}f}\u00a0{units[i]}"


def table(page, selector):
    """Rows as dictionaries of the titles; of hidden columns nothing."""
    return page.evaluate("""[...document.querySelectorAll(SELECTOR + ' tbody tr')].map(row => Object.fromEntries(
        [...row.cells].filter(cell => !cell.hidden).map(cell => [cell.dataset.title, cell.textContent])))""".replace(
            "SELECTOR", json.dumps(selector)))


def open_live(browser, url, **look):
    page = Page(browser, **look)
    page.open(url + "/")
    page.wait_until("the first status", LIVE)
    return page


def asks_nobody_else(page, url):
    asked = [event["request"]["url"] for event in page.events("Network.requestWillBeSent")]
    check(url + "/v1/status" in asked, f"the status was not asked for: {asked}")
    broken = [event["entry"] for event in page.events("Log.entryAdded") if event["entry"]["source"] == "security"]
    check(not broken, f"the page breaks its own policy: {broken}")
    others = [each for each in asked if each not in (url + "/", url + "/v1/status") and not each.startswith("data:image/svg")]
    check(not others, f"it asks for more than itself: {others}")
    # What is put in by others is not run, and loads nothing.
    page.evaluate("""(() => {
        const script = document.createElement('script');
        script.textContent = 'window.hit = 1';
        const image = document.createElement('img');
        image.src = '/stolen';
        const frame = document.createElement('iframe');
        frame.src = '/metrics';
        document.body.append(script, image, frame);
        document.body.insertAdjacentHTML('beforeend', '<b onclick="window.hit = 1" id="bait">x</b>');
        document.querySelector('#bait').click();
        for (const element of [script, image, frame, document.querySelector('#bait')]) element.remove();
    })()""")
    check(page.evaluate("window.hit === undefined"), "somebody else's script was run")
    time_asked = len(page.events("Network.requestWillBeSent"))
    page.browser.wait_for("one more status", lambda: len(page.events("Network.requestWillBeSent")) > time_asked)
    loaded = [event["response"]["url"] for event in page.events("Network.responseReceived")]
    check({each for each in loaded if not each.startswith("data:")} <= {url + "/", url + "/v1/status"}, f"it loaded {loaded}")


def numbers_are_right(page, url, mount, source, name):
    """A cold read, then a warm one: half of the reads came from the origin, half from memory."""
    for _ in range(2):
        read_file(f"{mount}/file")
    page.wait_until("hits of half of the reads", "document.querySelector('#hits .value').textContent.startsWith('50.0')")
    check("no read" not in page.text("#chart").lower(), "the chart tells of no read")
    status = status_of(url)
    volume = status["volumes"][0]
    check(volume["name"] == name, volume["name"])
    check(volume["bytes"] == {"memory": FILE_BYTES, "disk": 0, "peer": 0, "origin": FILE_BYTES}, volume["bytes"])

    row = table(page, "#volumes")[0]
    check(len(table(page, "#volumes")) == 1, "more than one volume")
    check(row["volume"] == f"{name}{mount} \u2190 {source}", row)
    check(row["transport"] == {"uring": "io_uring", "dev": "/dev/fuse"}[volume["transport"]] + "passthrough off", row)
    check((row["memory"], row["disk"], row["origin"]) == (bytes_text(FILE_BYTES), NOTHING, bytes_text(FILE_BYTES)), row)
    check("peer" not in row, "a column for peers that there are none of")
    check((row["open"], row["errors"]) == (str(volume["open"]), "0"), row)
    check(re.fullmatch("[0-9.]+\u00a0(\u00b5s|ms|s)", row["p50"]) and row["p99"] != NOTHING, row)
    values = page.evaluate("[...document.querySelectorAll('#hits .value')].map(each => each.textContent)")
    check(values == ["50.0\u00a0%", "0.0\u00a0%", "50.0\u00a0%"], values)
    check("missed" in page.text("#hits .hit:first-child .target"), "L0 of 50 % is no miss of its target")

    check(page.text("#node") == status["node"], page.text("#node"))
    check(status["version"] in page.text("#facts") and str(status["pid"]) in page.text("#facts"), page.text("#facts"))
    check(re.search("up [0-9]+\u00a0(s|min)", page.text("#facts")), page.text("#facts"))
    disk = status["tiers"]["disk"]["disks"][0]
    drive = page.text("#disks .drive")
    for part in (disk["path"], "ok", f"of {bytes_text(100 << 20)}", "0\u00a0errors"):
        check(part in drive, f"{part} in {drive}")
    plan = [(each["what"] , each["bytes"]) for each in table(page, "#memory")]
    wanted = [(each["what"], bytes_text(each["bytes"])) for each in status["memory_plan"]]
    check(len(plan) == len(wanted) and all(p[0].startswith(w[0]) and p[1] == w[1] for p, w in zip(plan, wanted)), (plan, wanted))
    check(abs(sum(each["bytes"] for each in status["memory_plan"]) / status["memory_limit"] - 1) < 0.1, "the plan is not the limit")
    origin = table(page, "#origins")[0]
    check(origin["origin of"] == name + source and origin["bytes"] == bytes_text(volume["origin_bytes"]), origin)
    check(page.evaluate("document.querySelector('#content-empty').hidden") is False, "a content store that there is none of")


def names_are_text(page, mount):
    """A file's name with markup, letters, a line break and two bytes that are no UTF-8."""
    read_file(glob.glob(glob.escape(mount) + "/<b*")[0])
    shown = "<b onclick=x>\u00e9 \u0436\\x0aline\u00ff"
    page.wait_until("a slow request to the odd file", f"document.querySelector('#slow').textContent.includes({json.dumps(shown)})")
    check(page.evaluate("document.querySelectorAll('main img, main b[onclick], [onerror]').length") == 0, "a name became markup")
    check(page.evaluate("window.hit === undefined"), "a name was run")


def some_traffic(page, mount):
    """So that there is something to see on the pictures: files that are new beside one that is known."""
    for number in range(SHARDS):
        read_file(f"{mount}/shard-{number}")
        for _ in range(number % 4):
            read_file(f"{mount}/file")
        known = len(page.events("Network.loadingFinished"))
        page.browser.wait_for("one more status", lambda: len(page.events("Network.loadingFinished")) > known)
    bars = page.evaluate("chart.points.filter(point => sum(point.rates) > 0).length")
    check(bars >= SHARDS / 2, f"{SHARDS} seconds of reads are {bars} steps of the chart")


def counts_from_its_opening(browser, url, mount):
    """Rates, ratios and latencies are what came since, not the sums of the status."""
    page = open_live(browser, url)
    page.wait_until("a second status", "chart.points.length > 0")
    hits = "[...document.querySelectorAll('#hits .value')].map(each => each.textContent).join(' ')"
    row = table(page, "#volumes")[0]
    check("MiB" in row["memory"] and "MiB" in row["origin"], f"the sums: {row}")
    check((row["now"], row["reads"], row["p50"], row["p99"]) == (NOTHING,) * 4, f"rates of nobody: {row}")
    check(page.evaluate(hits) == " ".join(NOTHING * 3), "hits of nobody")
    check("no read in the last" in page.evaluate("document.querySelector('#chart .none').textContent"), "the chart of nobody")
    read_file(f"{mount}/file")
    page.wait_until("hits of a warm read", f"{hits} === '100.0\u00a0% 0.0\u00a0% 0.0\u00a0%'")
    check("not needed" in page.text("#hits .hit:nth-child(2) .target"), "a target of L1 that nothing was left for")
    seen = page.evaluate("sum(chart.points.map(point => sum(point.rates) * point.ms / 1000))")
    check(FILE_BYTES / 2 < seen < FILE_BYTES * 2, f"{seen} bytes in the chart for a read of {FILE_BYTES}")


def looks_well(page, artefacts):
    page.evaluate("document.activeElement.blur()")
    for name, width, dark in [("1280-light", 1280, False), ("1280-dark", 1280, True), ("1920-light", 1920, False),
                              ("360-light", 360, False), ("360-dark", 360, True)]:
        page.look(width, 900, dark)
        check(page.evaluate("document.documentElement.scrollWidth") <= width, f"wider than {width} pixels")
        page.screenshot(artefacts / f"page-{name}.png")
        faint = page.evaluate(FAINT)
        check(not faint, f"{name}: too little contrast: {faint}")
    page.look(1280, 900, False)


def works_with_keys(page):
    def press(key, code):
        for kind in ("rawKeyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    seen = []
    for _ in range(6):
        press("Tab", 9)
        seen.append(page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.id"))
    check(seen == ["#main", "/metrics", "/healthz", "/readyz", "/v1/status", "chart"], seen)
    check(page.evaluate("document.querySelector('#chart').getAttribute('aria-valuetext')").startswith("now: memory "), "the chart's value")
    press("ArrowLeft", 37)
    text = page.evaluate("document.querySelector('#chart').getAttribute('aria-valuetext')")
    check(re.match("[1-5] seconds ago: memory .*, disk .*, peer none, origin ", text), text)
    check("s ago" in page.text("#legend"), page.text("#legend"))
    press("Escape", 27)
    check("s ago" not in page.text("#legend"), page.text("#legend"))


def misses_its_node(page, artefacts, wishes):
    (wishes / "node-may-end").touch()
    page.wait_until("the word that the node is gone", "!document.querySelector('#stale').hidden")
    check(page.text("#live") == "no answer" and page.evaluate("document.title").startswith("no answer"), page.text("#live"))
    check(page.text("#announcer") == "The node does not answer.", page.text("#announcer"))
    page.wait_until("an age that grows", "/ ([2-9]|[1-9][0-9]+)\\u00a0s old/.test(document.querySelector('#stale-age').textContent)")
    check("MiB" in table(page, "#volumes")[0]["memory"], "the last numbers are not shown any more")
    page.screenshot(artefacts / "page-no-answer.png", whole=False)
    (wishes / "node-may-start").touch()
    page.wait_until("an answer of the next node", f"{LIVE} && document.querySelector('#stale').hidden")
    check(page.text("#announcer") == "The node answers again.", page.text("#announcer"))
    # Its sums begin anew, and nobody has read.
    page.wait_until("the new sums", "document.querySelector('#volumes td[data-title=memory]').textContent === '\u2013'")
    check("No read in the" in page.text("#hits-empty"), "it does not say that there was no read")
    check(page.text("#now-bytes").split() == ["0", "B/s"], page.text("#now-bytes"))
    page.screenshot(artefacts / "page-no-read.png")


def shows(browser, url, mount, source, name, artefacts, wishes):
    page = open_live(browser, url)
    numbers_are_right(page, url, mount, source, name)
    names_are_text(page, mount)
    some_traffic(page, mount)
    counts_from_its_opening(browser, url, mount)
    works_with_keys(page)
    looks_well(page, artefacts)
    asks_nobody_else(page, url)
    misses_its_node(page, artefacts, pathlib.Path(wishes))
    refused = [event["entry"] for event in page.events("Log.entryAdded") if event["entry"]["source"] not in ("network", "security")]
    check(not refused, refused)
    thrown = page.events("Runtime.exceptionThrown")
    check(not thrown, thrown)


def enter(page, token):
    page.evaluate(f"document.querySelector('#token').value = {json.dumps(token)}; document.querySelector('#token-form button').click()")


def token(browser, url, token, name, artefacts):
    asked_for = "!document.querySelector('#token-form').hidden && document.querySelector('#main').hidden"
    page = Page(browser)
    page.open(url + "/")
    page.wait_until("the question for the token", asked_for)
    check(page.evaluate("document.activeElement.id") == "token", "the field has no focus")
    check(page.evaluate("document.querySelector('label[for=token]').textContent") == "Token", "the field has no label")
    page.screenshot(artefacts / "page-token.png", whole=False)
    for wrong, why in [("0123456789abcdef0124", "refuses"), ("\u00e9 \u0436", "ASCII")]:
        enter(page, wrong)
        page.wait_until("a refusal", f"document.querySelector('#token-wrong').textContent.includes('{why}')")
        check(page.evaluate(asked_for), "shown all the same")
    enter(page, token)
    page.wait_until("the status", LIVE)
    check(table(page, "#volumes")[0]["volume"].startswith(name), "no volume")
    # Kept for this tab, and nowhere that others see.
    page.open(url + "/")
    page.wait_until("the status once more", LIVE)
    check(page.evaluate(f"!document.documentElement.outerHTML.includes({json.dumps(token)})"), "the token is in the document")
    check(page.evaluate("document.cookie === '' && localStorage.length === 0 && sessionStorage.length === 1"), "kept elsewhere")
    urls = [event["request"]["url"] for event in page.events("Network.requestWillBeSent")]
    check(not any(token in each for each in urls), f"the token is in an address: {urls}")
    # A link cannot carry it: what it leads to is shown all the same.
    page.call("Runtime.evaluate", expression="document.querySelector('nav a[href=\"/metrics\"]').click()", userGesture=True)
    targets = lambda: [each["url"] for each in browser.call("Target.getTargets")["targetInfos"] if each["url"].startswith("blob:" + url)]
    deadline = time.monotonic() + PATIENCE_S
    while not targets():
        check(time.monotonic() < deadline, "the metrics are not shown")
        select.select([], [], [], 0.02)
    # Another tab does not have it; and this one forgets.
    other = Page(browser)
    other.open(url + "/")
    other.wait_until("the question in another tab", asked_for)
    page.evaluate("document.querySelector('#forget').click()")
    page.wait_until("the question after forgetting", asked_for)
    check(page.evaluate("sessionStorage.length === 0"), "it did not forget")


def wait_gone(folder):
    """The browser's helpers end after it."""
    deadline = time.monotonic() + PATIENCE_S
    def left():
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                if os.fsencode(folder) in pathlib.Path(path).read_bytes():
                    return path
            except OSError:
                pass
        return None
    while left():
        check(time.monotonic() < deadline, f"{left()} goes on without its browser")
        select.select([], [], [], 0.02)


def main():
    program, url, step, *arguments = sys.argv[1:]
    where = 3 if step == "shows" else 2
    arguments[where] = pathlib.Path(arguments[where])
    arguments[where].mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.environ["MOUNT_TMP"], ignore_cleanup_errors=True) as folder:
        browser = Chromium(program, folder, PATIENCE_S)
        try:
            {"shows": shows, "token": token}[step](browser, url, *arguments)
        finally:
            browser.close()
            wait_gone(folder)


try:
    main()
except Failure as problem:
    sys.exit(f"web_page.py: {problem}")
