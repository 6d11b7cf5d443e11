"""A headless Chromium that is spoken to over two pipes (the DevTools protocol), with nothing but the standard library."""

import base64
import json
import os
import select
import subprocess
import time

# As root it has no sandbox to put itself into, and what it would ask the world by itself it does not.
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--disable-extensions", "--no-proxy-server",
         "--hide-scrollbars", "--remote-debugging-pipe"]
READ_BYTES = 1 << 16


class Failure(Exception):
    pass


class Chromium:
    """One browser; `page` is a tab of its own each."""

    def __init__(self, program, folder, patience_s=60):
        self.patience_s = patience_s
        self.number = 0
        self.events = []
        self.answers = {}
        self.rest = b""
        from_browser, browser_writes = os.pipe()
        browser_reads, to_browser = os.pipe()
        # It reads its orders from 3 and writes to 4.
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec 3<&{browser_reads} 4>&{browser_writes}; exec "$0" "$@"', program, *FLAGS, f"--user-data-dir={folder}",
             "about:blank"], pass_fds=(browser_reads, browser_writes), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": "disabled:"})
        os.close(browser_reads)
        os.close(browser_writes)
        self.reads, self.writes = from_browser, to_browser

    def close(self):
        try:
            self.call("Browser.close")
            self.process.wait(self.patience_s)
        finally:
            self.process.kill()
            self.process.wait()

    def call(self, method, session=None, **parameters):
        self.number += 1
        order = {"id": self.number, "method": method, "params": parameters}
        if session:
            order["sessionId"] = session
        os.write(self.writes, json.dumps(order).encode() + b"\0")
        number = self.number
        self.wait_for(method, lambda: number in self.answers)
        answer = self.answers.pop(number)
        if "error" in answer:
            raise Failure(f"{method}: {answer['error']}")
        return answer["result"]

    def wait_for(self, what, test):
        """Takes what the browser says until the test is content."""
        deadline = time.monotonic() + self.patience_s
        while True:
            value = test()
            if value:
                return value
            left = deadline - time.monotonic()
            if left <= 0 or not self.receive(left):
                raise Failure(f"waited in vain: {what}")

    def receive(self, seconds):
        if not select.select([self.reads], [], [], seconds)[0]:
            return False
        part = os.read(self.reads, READ_BYTES)
        if not part:
            return False
        *messages, self.rest = (self.rest + part).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self.answers[message["id"]] = message
            else:
                self.events.append(message)
        return True


class Page:
    """A tab with storage of its own. What it asks for and what goes wrong in it is in the browser's events."""

    def __init__(self, browser, width=1280, height=900, dark=False):
        self.browser = browser
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=self.context)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(domain + ".enable")
        self.look(width, height, dark)

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def look(self, width, height, dark):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"}])

    def open(self, url):
        self.call("Page.navigate", url=url)

    def events(self, method):
        return [event["params"] for event in self.browser.events
                if event["method"] == method and event.get("sessionId") == self.session]

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise Failure(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait_until(self, what, condition):
        """Until the expression holds: looked at again at each change of the document."""
        expression = """new Promise(resolve => {
          const holds = () => { try { return CONDITION; } catch { return false; } };
          const look = () => { if (holds()) { observer.disconnect(); clearTimeout(timer); resolve(true); } };
          const observer = new MutationObserver(look);
          const timer = setTimeout(() => { observer.disconnect(); resolve(false); }, PATIENCE_MS);
          observer.observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
          look();
        })""".replace("CONDITION", condition).replace("PATIENCE_MS", str(self.browser.patience_s * 900))
        if not self.evaluate(expression):
            raise Failure(f"waited in vain: {what} ({condition})")

    def text(self, selector):
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def screenshot(self, path, whole=True):
        """Of the whole page, not only of what would be seen without scrolling."""
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            picture = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        else:
            picture = self.call("Page.captureScreenshot")
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))
