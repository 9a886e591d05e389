// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"math"
	"math/rand"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

const zipfSkew = 0.99

// zipfRequests returns n keys below `keys`, as zipf.hpp draws them.
func zipfRequests(keys, n int, seed int64) []uint64 {
	cumulative := make([]float64, keys)
	sum := 0.0
	for k := range cumulative {
		sum += math.Pow(float64(k+1), -zipfSkew)
		cumulative[k] = sum
	}
	random := rand.New(rand.NewSource(seed))
	requests := make([]uint64, n)
	for i := range requests {
		requests[i] = uint64(sort.SearchFloat64s(cumulative, random.Float64()*sum))
	}
	return requests
}

func busy(spend time.Duration) func() {
	return func() {
		for end := time.Now().Add(spend); time.Now().Before(end); {
		}
	}
}

func asleep(spend time.Duration) func() { return func() { time.Sleep(spend) } }

func dedupRows() []row {
	rows := []row{}
	add := func(name string, keys int, wishes [][]uint64) {
		for _, loader := range []struct {
			name string
			load func()
		}{
			{"none", func() {}},
			{"10us_busy", busy(10 * time.Microsecond)},
			{"1ms_busy", busy(time.Millisecond)},
			{"1ms_asleep", asleep(time.Millisecond)},
			{"10ms_asleep", asleep(10 * time.Millisecond)},
		} {
			loader := loader
			rows = append(rows, row{
				name: fmt.Sprintf("dedup/%s/callers:%d/loader:%s/go", name, len(wishes), loader.name),
				measure: func(seconds time.Duration) counters {
					return closedLoop(keys, wishes, seconds, loader.load)
				},
			})
		}
	}
	for _, callers := range []int{2, 8, 64, 256} {
		wishes := make([][]uint64, callers)
		for i := range wishes {
			wishes[i] = []uint64{0}
		}
		add("one_key", 1, wishes)
	}
	const keys = 10_000
	zipf := [][]uint64{}
	for seed := int64(0); seed < 64; seed++ {
		zipf = append(zipf, zipfRequests(keys, 4096, seed))
	}
	add("zipf", keys, zipf)
	return rows
}

// closedLoop has as many callers as wish lists, each asking again as soon as it is answered.
func closedLoop(keys int, wishes [][]uint64, seconds time.Duration, load func()) counters {
	j := newJudge(keys)
	tallies := make([]tally, len(wishes))
	var stop atomic.Bool
	var done sync.WaitGroup
	start := make(chan struct{})
	for caller := range wishes {
		caller := caller
		done.Add(1)
		go func() {
			defer done.Done()
			<-start
			for i := 0; !stop.Load(); i++ {
				j.ask(wishes[caller][i%len(wishes[caller])], time.Now(), load, &tallies[caller])
			}
		}()
	}
	began := time.Now()
	close(start)
	time.Sleep(seconds)
	stop.Store(true)
	done.Wait()
	return report(tallies, time.Since(began))
}
