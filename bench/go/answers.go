// SPDX-License-Identifier: MIT

package main

import (
	"sort"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// An answer has its key, and its number among the loads of that key.
type answer struct{ key, number uint64 }

// A tally counts the requests of one goroutine and their answers.
type tally struct {
	requests, fresh, loads float64
	waits                  []time.Duration
}

type history struct {
	loads    uint64
	returned uint64 // the highest number that a caller came back with
	_        [48]byte
}

// A judge asks for keys and judges the answers, as answers.hpp says.
type judge struct {
	group     singleflight.Group
	names     []string
	histories []history
}

func newJudge(keys int) *judge {
	j := &judge{histories: make([]history, keys)}
	for i := 0; i < keys; i++ {
		j.names = append(j.names, strconv.Itoa(1000+i))
	}
	return j
}

func (j *judge) ask(key uint64, since time.Time, load func(), mine *tally) {
	past := &j.histories[key]
	returnedBefore := atomic.LoadUint64(&past.returned)
	value, _, _ := j.group.Do(j.names[key], func() (any, error) {
		mine.loads++
		load()
		return answer{key, atomic.AddUint64(&past.loads, 1)}, nil
	})
	got := value.(answer)
	mine.waits = append(mine.waits, time.Since(since))
	raise(&past.returned, got.number)
	mine.requests++
	check(got.key == key)
	if got.number > returnedBefore {
		mine.fresh++
	}
}

func raise(highest *uint64, value uint64) {
	for {
		seen := atomic.LoadUint64(highest)
		if seen >= value || atomic.CompareAndSwapUint64(highest, seen, value) {
			return
		}
	}
}

func report(tallies []tally, spent time.Duration) counters {
	sum := tally{}
	for _, each := range tallies {
		sum.requests += each.requests
		sum.fresh += each.fresh
		sum.loads += each.loads
		sum.waits = append(sum.waits, each.waits...)
	}
	sort.Slice(sum.waits, func(a, b int) bool { return sum.waits[a] < sum.waits[b] })
	quantile := func(share float64) float64 {
		at := int(share * float64(len(sum.waits)-1))
		return float64(sum.waits[at].Nanoseconds()) / 1000
	}
	return counters{
		"requests/s": sum.requests / spent.Seconds(),
		"fresh/s":    sum.fresh / spent.Seconds(),
		"stale%":     100 * (sum.requests - sum.fresh) / sum.requests,
		"loads/s":    sum.loads / spent.Seconds(),
		"dedup":      sum.fresh / sum.loads,
		"p50_us":     quantile(0.5),
		"p99_us":     quantile(0.99),
	}
}
