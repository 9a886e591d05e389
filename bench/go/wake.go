// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"math"
	"runtime"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

func wakeRows() []row {
	rows := []row{}
	add := func(name string, followers int) {
		rows = append(rows, row{
			name:    fmt.Sprintf("%s:%d/go", name, followers),
			measure: func(seconds time.Duration) counters { return wake(followers, seconds) },
		})
	}
	for _, followers := range []int{8, 64, 256} {
		add("wake/followers", followers)
	}
	// The largest first: some of what the runtime has for a goroutine is never freed, and used again.
	for _, waiters := range []int{100_000, 10_000, 256, 64} {
		add("herd/waiters", waiters)
	}
	return rows
}

// wake measures from the end of the loader until the last goroutine is back. The package does not
// say who has joined, so the loader sleeps for a millisecond after all are about to join; rounds in
// which one came too late are left out.
func wake(followers int, seconds time.Duration) counters {
	var group singleflight.Group
	var lasts, joins []float64
	executions := 0.0
	bytesEach := 0.0
	runtime.GC() // frees the stacks of goroutines that are gone
	for end := time.Now().Add(2 * seconds); len(lasts) == 0 || time.Now().Before(end); {
		before := memoryInUse()
		var about, back, executed atomic.Int64
		var loaded, last time.Time
		var join time.Duration
		var done sync.WaitGroup
		comeBack := func() {
			if back.Add(1) == int64(followers)+1 {
				last = time.Now()
			}
		}
		load := func() (any, error) { executed.Add(1); return nil, nil }
		group.Do("key", func() (any, error) {
			began := time.Now()
			done.Add(followers)
			for i := 0; i < followers; i++ {
				go func() {
					defer done.Done()
					about.Add(1)
					group.Do("key", load)
					comeBack()
				}()
			}
			for about.Load() < int64(followers) {
				time.Sleep(10 * time.Microsecond)
			}
			join = time.Since(began)
			time.Sleep(time.Millisecond)
			bytesEach = math.Max(bytesEach, (memoryInUse()-before)/float64(followers))
			executed.Add(1)
			loaded = time.Now()
			return nil, nil
		})
		comeBack()
		done.Wait()
		if executed.Load() > 1 {
			continue
		}
		executions++
		lasts = append(lasts, float64(last.Sub(loaded).Nanoseconds())/1000)
		joins = append(joins, float64(join.Nanoseconds())/float64(followers))
	}
	return counters{
		"last_us":    median(lasts),
		"join_ns":    median(joins),
		"bytes":      bytesEach,
		"executions": executions / float64(len(lasts)),
	}
}

func median(figures []float64) float64 {
	sort.Float64s(figures)
	return figures[len(figures)/2]
}

// memoryInUse returns the bytes of the heap's objects and of the goroutines' stacks, as the runtime
// counts them.
func memoryInUse() float64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc + stats.StackInuse)
}
