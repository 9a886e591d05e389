#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes scripts for replay.cpp and replay.go: traces.py SEED COUNT.

  trace N           a new group
  do C K            caller C calls key K and blocks; the next step is taken when it leads or has joined
  chan C K          caller C calls key K and does not block (DoChan, do_async); likewise
  forget K
  end C HOW N       the loader of caller C ends: by return of N, by fail or panic with N, or by exit of
                    its thread; the next step is taken when all callers of that call have answered
  recursion         a loader asks for its own key
  race WHAT N       two steps that nothing orders, until they have had N different outcomes
"""
import random
import sys


class Call:
    def __init__(self, key, leader, is_chan):
        self.key, self.leader, self.is_chan = key, leader, is_chan
        self.has_chans = is_chan


def trace(chance, number):
    print("trace", number)
    keys = chance.choice([1, 2, 3])
    steps = chance.randint(3, 14)
    running, listed = [], {}
    callers = 0

    def end():
        call = running.pop(chance.randrange(len(running)))
        if listed.get(call.key) is call:
            del listed[call.key]
        ways = ["return"] * 4 + ["fail"] * 2
        if not call.has_chans:  # in Go a panic past a channel ends the program
            ways.append("panic")
        if not call.is_chan:
            ways.append("exit")
        print("end", call.leader, chance.choice(ways), chance.randint(1, 99))

    for _ in range(steps):
        key = chance.randrange(keys)
        step = chance.choices(["do", "chan", "forget", "end"], [6, 2, 1, 3])[0]
        if step in ("do", "chan"):
            callers += 1
            print(step, callers, key)
            if key in listed:
                listed[key].has_chans |= step == "chan"
            else:
                listed[key] = Call(key, callers, step == "chan")
                running.append(listed[key])
        elif step == "forget":
            listed.pop(key, None)
            print("forget", key)
        elif running:
            end()
    while running:
        end()


def main():
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    chance = random.Random(seed)
    for number in range(count):
        trace(chance, number)
    print("trace recursion\nrecursion")
    print("trace races")
    for what, outcomes in (("do-do", 3), ("do-forget", 2), ("do-end", 2)):
        print("race", what, outcomes)


main()
