// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/singleflight"
)

func costRows() []row {
	rows := []row{
		{name: "cost/key:string/go", measure: func(seconds time.Duration) counters {
			var group singleflight.Group
			before := processorTime()
			n, _ := repeat(seconds, unshared(&group, 0))
			return counters{"cpu_time": float64(processorTime()-before) / float64(n)}
		}},
		{name: "counts/key:string/go", measure: func(time.Duration) counters {
			var group singleflight.Group
			call := unshared(&group, 0)
			result := testing.Benchmark(func(b *testing.B) {
				for i := 0; i < b.N; i++ {
					call()
				}
			})
			return counters{
				"allocations": float64(result.MemAllocs) / float64(result.N),
				"bytes":       float64(result.MemBytes) / float64(result.N),
			}
		}},
	}
	for _, threads := range []int{1, 2, 4, 8} {
		threads := threads
		rows = append(rows, row{
			name: fmt.Sprintf("cost_threads/key:string/go/threads:%d", threads),
			measure: func(seconds time.Duration) counters {
				return counters{"calls/s": inParallel(threads, seconds)}
			},
		})
	}
	return rows
}

// unshared returns a call without followers, for a key of 24 characters.
func unshared(group *singleflight.Group, n int) func() {
	key := fmt.Sprintf("template-details:en-GB:%d", n)
	loaded := uint64(0)
	return func() {
		value, _, _ := group.Do(key, func() (any, error) {
			loaded++
			return loaded, nil
		})
		check(value.(uint64) == loaded)
	}
}

// processorTime returns what the process has used so far, the garbage collector's threads included.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// repeat calls for a time and returns how often and for how long.
func repeat(seconds time.Duration, call func()) (n int, spent time.Duration) {
	began := time.Now()
	for spent < seconds {
		const batch = 100
		for i := 0; i < batch; i++ {
			call()
		}
		n += batch
		spent = time.Since(began)
	}
	return n, spent
}

// inParallel returns how many calls a second the goroutines make, each for a key of its own.
func inParallel(threads int, seconds time.Duration) float64 {
	var group singleflight.Group
	var done sync.WaitGroup
	calls := make([]float64, threads)
	for i := 0; i < threads; i++ {
		i := i
		done.Add(1)
		go func() {
			defer done.Done()
			n, spent := repeat(seconds, unshared(&group, i))
			calls[i] = float64(n) / spent.Seconds()
		}()
	}
	done.Wait()
	sum := 0.0
	for _, each := range calls {
		sum += each
	}
	return sum
}
