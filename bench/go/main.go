// SPDX-License-Identifier: MIT

// The same questions to Go's golang.org/x/sync/singleflight. Rows are named and counted as in the
// C++ programs beside this folder, and printed in the shape of Google Benchmark's JSON.
//
// The differences: callers are goroutines, keys are strings always, and a sleep is as coarse as
// Go's timers (with Go 1.19 on Linux, one of 1 ms takes up to 2 ms), so the rows with busy loaders
// are the ones to compare.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"time"
)

type row struct {
	name    string
	measure func(seconds time.Duration) counters
}

type counters map[string]float64

var (
	seconds = flag.Float64("seconds", 0.1, "how long each row measures")
	once    = flag.Bool("once", false, "run each row through, briefly")
	filter  = flag.String("benchmark_filter", ".", "which rows: a regular expression")
	out     = flag.String("benchmark_out", "/dev/stdout", "where the JSON goes")
)

func main() {
	flag.Parse()
	if *once {
		*seconds = 0.001
	}
	wanted := regexp.MustCompile(*filter)
	rowTime := time.Duration(*seconds * float64(time.Second))

	measured := []map[string]any{}
	for _, rows := range [][]row{costRows(), dedupRows(), wakeRows(), savingRows()} {
		for _, r := range rows {
			if !wanted.MatchString(r.name) {
				continue
			}
			result := map[string]any{"name": r.name, "run_name": r.name, "run_type": "iteration"}
			for name, value := range r.measure(rowTime) {
				result[name] = value
			}
			measured = append(measured, result)
		}
	}

	text, err := json.MarshalIndent(map[string]any{
		"context":    map[string]any{"compiler": runtime.Version(), "flags": fmt.Sprint("GOMAXPROCS=", runtime.GOMAXPROCS(0))},
		"benchmarks": measured,
	}, "", " ")
	if err == nil {
		err = os.WriteFile(*out, text, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "go_bench:", err)
		os.Exit(1)
	}
}

func check(right bool) {
	if !right {
		panic("wrong answer")
	}
}
