// SPDX-License-Identifier: MIT

// Replays the scripts of traces.py on golang.org/x/sync/singleflight, one step at a time. replay.cpp
// is the same for singleflight::group; what both print must be equal.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sync/singleflight"
)

type order struct {
	how    string
	number int
}

type caller struct {
	id, key    int
	chanCaller bool
	leads      int32
	orders     chan order
	results    <-chan singleflight.Result
	answer     string
	done       chan struct{} // closed when the caller has returned or exited
}

// listedCall is the package's own call object, looked at under the group's own mutex: there is no
// other way to know that a caller has joined without asking the clock.
type listedCall struct {
	mu   *sync.Mutex
	call reflect.Value
}

func call(g *singleflight.Group, key int) listedCall {
	group := reflect.ValueOf(g).Elem()
	mu := (*sync.Mutex)(unsafe.Pointer(group.FieldByName("mu").UnsafeAddr()))
	mu.Lock()
	defer mu.Unlock()
	return listedCall{mu, group.FieldByName("m").MapIndex(reflect.ValueOf(strconv.Itoa(key)))}
}

// dups returns how many callers have joined the call, or -1 if there was none.
func (c listedCall) dups() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.call.IsValid() {
		return -1
	}
	return c.call.Elem().FieldByName("dups").Int()
}

func await(condition func() bool) {
	for !condition() {
		runtime.Gosched()
	}
}

func alone(shared bool) string {
	if shared {
		return " shared"
	}
	return " alone"
}

func answerOf(value interface{}, err error, shared bool) string {
	if err != nil {
		return err.Error() + alone(shared)
	}
	return fmt.Sprintf("value %d", value) + alone(shared)
}

func (c *caller) load() (interface{}, error) {
	atomic.StoreInt32(&c.leads, 1)
	o := <-c.orders
	switch o.how {
	case "fail":
		return nil, fmt.Errorf("error %d", o.number)
	case "panic":
		panic(fmt.Sprintf("panic %d", o.number))
	case "exit":
		runtime.Goexit()
	}
	return o.number, nil
}

// do runs in a goroutine of its own, which may end inside Do.
func (c *caller) do(g *singleflight.Group) {
	defer close(c.done)
	defer func() {
		if p := recover(); p != nil { // what the loader threw, and a stack trace
			c.answer = strings.SplitN(fmt.Sprint(p), "\n", 2)[0]
		}
	}()
	c.answer = "exits"
	c.answer = answerOf(g.Do(strconv.Itoa(c.key), c.load))
}

type replay struct {
	group   singleflight.Group
	callers map[int]*caller
	listed  map[int]int   // key to leader, as observed
	members map[int][]int // leader to callers of its call
}

func newReplay() *replay {
	return &replay{callers: map[int]*caller{}, listed: map[int]int{}, members: map[int][]int{}}
}

func (r *replay) enter(id, key int, chanCaller bool) {
	c := &caller{id: id, key: key, chanCaller: chanCaller,
		orders: make(chan order, 1), done: make(chan struct{})}
	r.callers[id] = c
	running := call(&r.group, key)
	joined := running.dups()
	if chanCaller {
		c.results = r.group.DoChan(strconv.Itoa(key), c.load)
	} else {
		go c.do(&r.group)
	}
	leads := func() bool { return atomic.LoadInt32(&c.leads) == 1 }
	await(func() bool { return leads() || running.dups() > joined })
	if leads() {
		r.listed[key] = id
		r.members[id] = []int{id}
		fmt.Printf("caller %d leads\n", id)
	} else {
		leader := r.listed[key]
		r.members[leader] = append(r.members[leader], id)
		fmt.Printf("caller %d joins\n", id)
	}
}

func (r *replay) forget(key int) {
	r.group.Forget(strconv.Itoa(key))
	delete(r.listed, key)
	fmt.Println("forget", key)
}

func (r *replay) end(id int, o order) {
	leader := r.callers[id]
	leader.orders <- o
	if listed, ok := r.listed[leader.key]; ok && listed == id {
		delete(r.listed, leader.key)
	}
	if !leader.chanCaller {
		<-leader.done // and has sent to the channels whatever it is going to send
	}
	members := r.members[id]
	sort.Ints(members)
	for _, member := range members {
		c := r.callers[member]
		if c.chanCaller {
			fmt.Printf("caller %d (chan): %s\n", member, c.received(o.how == "exit"))
		} else {
			<-c.done
			fmt.Printf("caller %d: %s\n", member, c.answer)
		}
	}
}

func (c *caller) received(leaderExited bool) string {
	if leaderExited {
		select {
		case r := <-c.results:
			return answerOf(r.Val, r.Err, r.Shared)
		default:
			return "is never answered"
		}
	}
	r := <-c.results
	return answerOf(r.Val, r.Err, r.Shared)
}

// recursion leaves a goroutine behind that waits for itself.
func recursion() {
	g := &singleflight.Group{}
	go g.Do("0", func() (interface{}, error) {
		fmt.Println("caller 1 leads")
		g.Do("0", func() (interface{}, error) { return 0, errors.New("two calls at once") })
		fmt.Println("caller 1 returns from itself")
		return 5, nil
	})
	await(func() bool { return call(g, 0).dups() == 1 })
	fmt.Println("caller 1 waits for itself")
	fmt.Println("caller 1: is never answered")
}

func raceOnce(what string, delay int) string {
	g := &singleflight.Group{}
	var heldRuns, end, entered int32
	start := make(chan struct{})
	if what == "do-do" {
		end = 1
	}
	is := func(flag *int32) func() bool { return func() bool { return atomic.LoadInt32(flag) == 1 } }
	answer := func(mine int, wait func()) string {
		v, _, shared := g.Do("0", func() (interface{}, error) { wait(); return mine, nil })
		if v.(int) == mine {
			return "own" + alone(shared)
		}
		return "other's" + alone(shared)
	}
	begin := func(yields int) {
		<-start
		for ; yields > 0; yields-- {
			runtime.Gosched()
		}
	}
	held, second, third := make(chan string), make(chan string), make(chan bool)
	go func() {
		if what == "do-do" {
			begin(delay / 8)
		}
		held <- answer(1, func() {
			atomic.StoreInt32(&heldRuns, 1)
			await(is(&end))
			runtime.Gosched()
		})
	}()
	if what != "do-do" {
		await(is(&heldRuns))
	}
	go func() {
		begin(delay % 8)
		second <- answer(2, func() { atomic.StoreInt32(&entered, 1); runtime.Gosched() })
	}()
	go func() {
		begin(delay / 8)
		switch what {
		case "do-forget":
			running := call(g, 0)
			g.Forget("0")
			await(func() bool { return is(&entered)() || running.dups() == 1 })
			atomic.StoreInt32(&end, 1)
		case "do-end":
			atomic.StoreInt32(&end, 1)
		}
		third <- true
	}()
	close(start)
	<-third
	secondAnswer := <-second
	return <-held + " | " + secondAnswer
}

// race repeats a race until it has had so many different outcomes, and at least 500 times.
func race(what string, outcomes int) {
	seen := map[string]bool{}
	for i := 0; i < 500 || len(seen) < outcomes && i < 200000; i++ {
		seen[raceOnce(what, i%64)] = true
	}
	sorted := []string{}
	for outcome := range seen {
		sorted = append(sorted, outcome)
	}
	sort.Strings(sorted)
	for _, outcome := range sorted {
		fmt.Printf("race %s: %s\n", what, outcome)
	}
}

func main() {
	var now *replay
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		number := func(i int) int {
			n, err := strconv.Atoi(words[i])
			if err != nil {
				panic(err)
			}
			return n
		}
		switch words[0] {
		case "trace":
			fmt.Println("trace", words[1])
			now = newReplay()
		case "do", "chan":
			now.enter(number(1), number(2), words[0] == "chan")
		case "forget":
			now.forget(number(1))
		case "end":
			now.end(number(1), order{words[2], number(3)})
		case "recursion":
			recursion()
		case "race":
			race(words[1], number(2))
		default:
			panic("unknown step " + words[0])
		}
	}
}
