# SPDX-License-Identifier: MIT
"""/debug/flights in a browser, while requests wait for queries that are held."""

import base64
import os
import pathlib
import unittest

from browser import Browser
from servers import Crowd, WithServers, await_that

PATIENT = ("--deadline-ms=60000", "--max-age-ms=60000", "--store-timeout-s=60",
           "--store-patience-ms=60000")
PICTURES = os.environ.get("SINGLEFLIGHT_PICTURES")  # a directory, to look at them

ROWS = """return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].map(
    row => [...row.cells].map(cell => cell.textContent))"""
FIGURE = """return [...document.querySelectorAll("#now div")].find(
    box => box.firstChild.textContent === arguments[0])?.lastChild.textContent"""


class FlightsPage(WithServers):
    def setUp(self):
        super().setUp()
        self.browser = self.enterContext(Browser())

    def keep_picture(self, name):
        if PICTURES:
            pathlib.Path(PICTURES, name + ".png").write_bytes(base64.b64decode(self.browser.picture()))

    def rows(self, table):
        return self.browser.run(ROWS, table)

    def figure(self, name):
        return self.browser.run(FIGURE, name)

    def test_it_is_there_only_if_a_flag_asks_for_it(self):
        client = self.start_service()
        self.assertEqual(client.get("/debug/flights").status, 404)
        self.assertEqual(client.get("/debug/flights.json").status, 404)

    def test_it_shows_who_waits_for_what_while_they_wait(self):
        client = self.start_service(*PATIENT, "--debug-flights")
        browser = self.browser
        browser.resize(1000, 900)
        browser.open(client.service.url + "/debug/flights")
        with self.queries_held():
            crowds = [Crowd(12, lambda: client.details(7)), Crowd(5, lambda: client.details(8, "de"))]
            await_that(lambda: [row[:2] for row in sorted(self.rows("calls"))]
                       == [["7 en", "11"], ["8 de", "4"]], "the page to show the calls")
            self.assertEqual(self.figure("calls in flight"), "2")
            self.assertEqual(self.figure("waiting"), "15")
            self.assertEqual(self.rows("top"), [["7 en", "11"], ["8 de", "4"]])
            first = float(self.rows("calls")[0][2].removesuffix(" s"))
            await_that(lambda: float(self.rows("calls")[0][2].removesuffix(" s")) > first,
                       "the page to refresh itself")
            # The last minute, as soon as the second is over in which they came.
            await_that(lambda: self.figure("requests a call, last minute") == "8.5", "the last minute")
            bars = browser.run("return [...document.querySelectorAll('#plot rect')].filter("
                               "bar => bar.getAttribute('height') > 0).length")
            self.assertGreaterEqual(bars, 2)
            self.keep_picture("flights")
            browser.resize(360, 740)
            self.assertLessEqual(browser.run("return document.documentElement.scrollWidth"), 360)
            self.assertGreaterEqual(browser.run(
                "return parseFloat(getComputedStyle(document.querySelector('td')).fontSize)"), 16)
            self.keep_picture("flights-phone")
        for crowd in crowds:
            self.assertEqual({answer.status for answer in crowd.answers()}, {200})
        await_that(lambda: self.rows("calls") == [], "the calls to be gone")
        self.assertEqual([line for line in browser.console() if "favicon" not in line["message"]], [])

    def test_a_key_is_text_whatever_is_in_it(self):
        client = self.start_service("--debug-flights")
        self.browser.open(client.service.url + "/debug/flights")
        key = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
        self.browser.run("""show({calls: [{key: arguments[0], waiters: 1, seconds: 1}], calls_in_flight: 1,
            waiting: 1, led: 1, joined: 0, rejected: 0, failed: 0, superseded: 0,
            top: [{key: arguments[0], joins: 1}], seconds: [], cache: {hits: 0, misses: 0, up: true}})""", key)
        shown = self.browser.run("""return [document.querySelector("#calls td").textContent,
            document.querySelector("#top td").textContent,
            document.querySelectorAll("td img, td script").length, document.title]""")
        self.assertEqual(shown, [key, key, 0, "Flights"])


if __name__ == "__main__":
    unittest.main()
