// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

func wakeRows() []row {
	rows := []row{}
	for _, followers := range []int{8, 64, 256} {
		followers := followers
		rows = append(rows, row{
			name:    fmt.Sprintf("wake/followers:%d/go", followers),
			measure: func(seconds time.Duration) counters { return wake(followers, seconds) },
		})
	}
	return rows
}

// wake measures from the end of the loader until the last goroutine is back. The package does not
// say who has joined, so the loader sleeps for a millisecond after all are about to join; rounds in
// which one came too late are left out.
func wake(followers int, seconds time.Duration) counters {
	var group singleflight.Group
	lasts := []time.Duration{}
	executions := 0.0
	for end := time.Now().Add(2 * seconds); len(lasts) == 0 || time.Now().Before(end); {
		var about, executed atomic.Int64
		returned := make([]time.Time, followers+1)
		var loaded time.Time
		var done sync.WaitGroup
		load := func() (any, error) { executed.Add(1); return nil, nil }
		group.Do("key", func() (any, error) {
			for i := 0; i < followers; i++ {
				i := i
				done.Add(1)
				go func() {
					defer done.Done()
					about.Add(1)
					group.Do("key", load)
					returned[i] = time.Now()
				}()
			}
			for about.Load() < int64(followers) {
				time.Sleep(10 * time.Microsecond)
			}
			time.Sleep(time.Millisecond)
			executed.Add(1)
			loaded = time.Now()
			return nil, nil
		})
		returned[followers] = time.Now()
		done.Wait()
		if executed.Load() > 1 {
			continue
		}
		executions++
		last := loaded
		for _, each := range returned {
			if each.After(last) {
				last = each
			}
		}
		lasts = append(lasts, last.Sub(loaded))
	}
	sort.Slice(lasts, func(a, b int) bool { return lasts[a] < lasts[b] })
	return counters{
		"last_us":    float64(lasts[len(lasts)/2].Nanoseconds()) / 1000,
		"executions": executions / float64(len(lasts)),
	}
}
