# SPDX-License-Identifier: MIT
"""A headless Chromium, driven through chromedriver by the WebDriver protocol."""
import json
import re
import subprocess
import tempfile
import urllib.request

QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--hide-scrollbars"]


class Browser:
    """Use it in a `with`: its end ends the processes."""

    def __enter__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        for line in self.driver.stdout:
            if started := re.search(r"started successfully on port (\d+)", line):
                break
        self.url = f"http://127.0.0.1:{started[1]}/session"
        session = self._request("", {"capabilities": {"alwaysMatch": {
            "timeouts": {"script": 120_000, "pageLoad": 120_000},  # the machine may be busy
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": [*QUIET, f"--user-data-dir={self.profile.name}"]}}}})
        self.url += "/" + session["sessionId"]
        return self

    def __exit__(self, *_):
        try:
            self._request("", method="DELETE")
        finally:
            self.driver.terminate()
            self.driver.wait()
            self.profile.cleanup()

    def _request(self, path, body=None, method="POST"):
        data = json.dumps(body).encode() if body is not None else None
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, method=method)) as answer:
            return json.load(answer)["value"]

    def open(self, url):
        self._request("/url", {"url": url})

    def run(self, script, *arguments):
        return self._request("/execute/sync", {"script": script, "args": arguments})

    def run_async(self, script, *arguments):
        """The script may `await`; its last argument is a function to be called with the result."""
        waiting = f"(async () => {{{script}}})().catch(e => arguments[arguments.length - 1]({{failed: String(e)}}))"
        result = self._request("/execute/async", {"script": waiting, "args": arguments})
        if isinstance(result, dict) and "failed" in result:
            raise RuntimeError(f"{self.run('return location.href')}: {result['failed']}")
        return result

    def resize(self, width, height):
        """Makes the page that wide, also narrower than a window can be."""
        self._request("/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}})

    def console(self):
        """Returns: what the console has said since the last call."""
        return self._request("/se/log", {"type": "browser"})

    def picture(self):
        return self._request("/goog/cdp/execute", {
            "cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": False}})["data"]
