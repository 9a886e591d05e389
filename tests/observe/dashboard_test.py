# SPDX-License-Identifier: MIT
"""The dashboard and the alert rules of packaging/, by promtool and beside the metrics that there are."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALERTS = ROOT / "packaging/prometheus/singleflight_alerts.yml"
DASHBOARD = ROOT / "packaging/grafana/singleflight.json"
METRICS = os.environ["METRICS"]  # a program that prints all metrics
GLOBALS = {"$job": "web", "$group": "rows", "$__rate_interval": "1m"}


def promtool(*arguments, text=None):
    return subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True)


class Dashboard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.metrics = subprocess.run([METRICS], capture_output=True, text=True, check=True).stdout
        cls.samples = {}
        for name, labels in re.findall(r"^(singleflight_\w+)\{(.*)\} ", cls.metrics, re.M):
            cls.samples.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
        panels = json.loads(DASHBOARD.read_text())["panels"]
        cls.expressions = [target["expr"] for panel in panels for target in panel["targets"]]
        cls.expressions += re.findall(r"expr: (?:\|\n)?((?:.|\n)*?)\n        for:", ALERTS.read_text())

    def test_metrics_follow_the_conventions(self):
        checked = promtool("check", "metrics", text=self.metrics)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""))

    def test_every_name_and_label_is_one_of_the_metrics(self):
        self.assertGreater(len(self.expressions), 15)
        for expression in self.expressions:
            names = set(re.findall(r"singleflight_\w+", expression))
            self.assertTrue(names, expression)
            for name in names:
                self.assertIn(name, self.samples, expression)
            for name, selected in re.findall(r"(singleflight_\w+)\{([^}]*)\}", expression):
                for label in re.findall(r"(\w+)=", selected):
                    if label != "job":  # of the scrape
                        self.assertIn(label, self.samples[name], expression)
            for labels in re.findall(r"by \(([^)]*)\)", expression):
                for label in labels.split(", "):
                    known = set.union(*(self.samples[name] for name in names))
                    self.assertIn(label, known | {"job"}, expression)

    def test_every_expression_is_promql(self):
        with tempfile.TemporaryDirectory() as directory:
            rules = pathlib.Path(directory, "rules.yml")
            expressions = []
            for expression in self.expressions:
                for name, value in GLOBALS.items():
                    expression = expression.replace(name, value)
                expressions.append(expression)
            rules.write_text(json.dumps({"groups": [{"name": "all", "rules": [
                {"record": f"a{i}", "expr": expression} for i, expression in enumerate(expressions)]}]}))
            checked = promtool("check", "rules", str(rules))
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_alerts_fire_where_they_should_and_nowhere_else(self):
        checked = promtool("check", "rules", str(ALERTS))
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        with tempfile.TemporaryDirectory() as directory:
            test = pathlib.Path(directory, "test.yml")
            source = pathlib.Path(__file__).with_name("alerts_test.yml").read_text()
            test.write_text(source.replace("@ALERTS@", json.dumps(str(ALERTS))))
            checked = promtool("test", "rules", str(test))
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_each_alert_is_tested(self):
        tested = pathlib.Path(__file__).with_name("alerts_test.yml").read_text()
        for alert in re.findall(r"alert: (\w+)", ALERTS.read_text()):
            self.assertEqual(tested.count(f"alertname: {alert}"), 2, alert)


if __name__ == "__main__":
    unittest.main()
