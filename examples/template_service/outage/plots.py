# SPDX-License-Identifier: MIT
"""A picture for each scenario: its runs side by side, drawn by gnuplot."""

import os
import subprocess

from processes import Failure

SCRIPT = """
set terminal svg size 1400,920 font "sans-serif,13" background "#ffffff"
set output "{output}"
set datafile separator ","
set multiplot layout 3,3 columnsfirst margins 0.075,0.99,0.06,0.87 spacing 0.05,0.09
set xrange [{first}:{last}]
set style fill solid 0.85 noborder
set boxwidth 1
set key at graph 0,1.03 left bottom horizontal Left reverse samplen 1.5 maxrows 1
set grid y lc "#dddddd"
set border 3 lc "#888888"
set tics nomirror textcolor "#444444"
set object 1 rectangle from {cut},graph 0 to {back},graph 1 fc "#f4d7d7" fs solid 1 noborder behind
{panels}
unset multiplot
"""

# The boxes of a second are stacked: the tallest is drawn first.
PANELS = """
{labels}
unset logscale y
set yrange [0:{most_answers}]
set ylabel "{answers}"
plot "{data}" skip 1 using ($1+0.5):($3+$4+$5) with boxes lc "#c0392b" title "no answer", \\
  "" skip 1 using ($1+0.5):($3+$4) with boxes lc "#e6a23c" title "503", \\
  "" skip 1 using ($1+0.5):3 with boxes lc "#4c956c" title "200"
unset label
set logscale y
set yrange [0.5:100000]
set ylabel "{latency}"
plot "{data}" skip 1 using ($1+0.5):7 with lines lw 2.5 lc "#b5651d" title "p99", \\
  "" skip 1 using ($1+0.5):6 with lines lw 2.5 lc "#2c6fbb" title "p50"
unset logscale y
set yrange [0:{most_queries}]
set ylabel "{load}"
set xlabel "seconds"
plot "{data}" skip 1 using ($1+0.5):8 with lines lw 2.5 lc "#2c6fbb" title "queries/s", \\
  "" skip 1 using ($1+0.5):12 with lines lw 2.5 lc "#4c956c" title "joins/s", \\
  "" skip 1 using ($1+0.5):10 with lines lw 2.5 lc "#c0392b" title "running"
unset xlabel
"""

LABEL = 'set label "{text}" at {where} center font ",{size}"'

TITLES = {"refused": "Redis is killed: connections are refused",
          "hanging": "Redis is stopped: connections hang"}


def draw(results, scenario, timeline):
    """Draws the runs of a scenario from their CSV files, without the time in which the cache warms."""
    files = {"without coalescing": f"{scenario}-off.csv", "with coalescing": f"{scenario}-on.csv",
             "with a fleet": f"{scenario}-fleet.csv"}
    columns = [read_columns(os.path.join(results, name), timeline.warm) for name in files.values()]
    most_answers = 1.15 * max(max(column["requests"]) for column in columns)
    most_queries = 1.15 * max(max(column["store_queries"] + column["joined"]) for column in columns)
    panels = "".join(
        PANELS.format(labels=labels(name, "" if column else TITLES[scenario]), data=data,
                      most_answers=most_answers, most_queries=most_queries,
                      answers="" if column else "answers/s",
                      latency="" if column else "latency, ms", load="" if column else "the store")
        for column, (name, data) in enumerate(files.items()))
    script = SCRIPT.format(output=f"{scenario}.svg", panels=panels,
                           first=timeline.warm, last=timeline.length, cut=timeline.cut_at,
                           back=timeline.back_at)
    drawn = subprocess.run(["gnuplot"], input=script, text=True, cwd=results, stderr=subprocess.PIPE,
                           check=False)
    if drawn.returncode != 0:
        raise Failure(f"gnuplot: {drawn.stderr.strip()}")


def labels(name, title):
    """The name of a column of panels; with the first, the title of the picture."""
    lines = [LABEL.format(text=name, where="graph 0.5,1.21", size=15)]
    if title:
        lines.append(LABEL.format(text=title, where="screen 0.5,0.972", size=17))
    return "\n".join(lines)


def read_columns(path, first):
    with open(path) as lines:
        names = next(lines).strip().split(",")
        rows = [[float(value) for value in line.split(",")] for line in lines][first:]
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}
