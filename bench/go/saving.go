// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"time"
)

// A resource has 8 slots and takes 2 ms for a query, as resource.hpp says.
type resource struct{ slots chan struct{} }

func newResource() *resource { return &resource{make(chan struct{}, 8)} }

func (r *resource) query() {
	r.slots <- struct{}{}
	time.Sleep(2 * time.Millisecond)
	<-r.slots
}

func savingRows() []row {
	rows := []row{}
	for _, keys := range []int{100, 10_000} {
		keys := keys
		for _, callers := range []int{8, 64, 256} {
			wishes := [][]uint64{}
			for seed := 0; seed < callers; seed++ {
				wishes = append(wishes, zipfRequests(keys, 4096, int64(seed)))
			}
			rows = append(rows, row{
				name: fmt.Sprintf("saving/closed/keys:%d/callers:%d/go", keys, callers),
				measure: func(seconds time.Duration) counters {
					return closedLoop(keys, wishes, 3*seconds, newResource().query)
				},
			})
		}
		for _, rate := range []int{2_000, 4_000, 8_000, 16_000} {
			rate := rate
			rows = append(rows, row{
				name: fmt.Sprintf("saving/open/keys:%d/rate:%d/go", keys, rate),
				measure: func(seconds time.Duration) counters {
					return openLoop(keys, float64(rate), 3*seconds)
				},
			})
		}
	}
	return rows
}

// openLoop has 256 goroutines serve requests in the order of arrival, as saving_bench.cpp says.
func openLoop(keys int, rate float64, seconds time.Duration) counters {
	random := rand.New(rand.NewSource(1))
	arrivals := []time.Duration{}
	for at := random.ExpFloat64() / rate; at < seconds.Seconds(); at += random.ExpFloat64() / rate {
		arrivals = append(arrivals, time.Duration(at*float64(time.Second)))
	}
	wishes := zipfRequests(keys, len(arrivals), 1)
	j := newJudge(keys)
	r := newResource()
	const servers = 256
	tallies := make([]tally, servers)
	var next atomic.Int64
	var done sync.WaitGroup
	began := time.Now().Add(20 * time.Millisecond)
	for server := 0; server < servers; server++ {
		server := server
		done.Add(1)
		go func() {
			defer done.Done()
			for i := next.Add(1) - 1; i < int64(len(arrivals)); i = next.Add(1) - 1 {
				since := began.Add(arrivals[i])
				time.Sleep(time.Until(since))
				j.ask(wishes[i], since, r.query, &tallies[server])
			}
		}()
	}
	done.Wait()
	return report(tallies, time.Since(began))
}
