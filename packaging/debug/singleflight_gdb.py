# SPDX-License-Identifier: MIT
"""Shows groups, their calls and results in gdb: (gdb) source singleflight_gdb.py

A group is shown as its listed calls, by key. It reads the members of the library by name, and those
of the standard library in a way that fits libstdc++ and libc++.
"""
import gdb
import gdb.printing


def members(value):
    """The members of a value and of its bases, deeper ones after."""
    for field in value.type.strip_typedefs().fields():
        if not hasattr(field, "bitpos"):  # static
            continue
        yield field.name or "", value[field]


def pointer_in(value):
    """The pointer that a unique_ptr holds: the first that is found in it."""
    if value.type.strip_typedefs().code == gdb.TYPE_CODE_PTR:
        return value
    if value.type.strip_typedefs().code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        for _, member in members(value):
            found = pointer_in(member)
            if found is not None:
                return found
    return None


def optional_in(value):
    """What an optional holds, or None."""
    engaged, held = None, None
    for name, member in members(value):
        if name in ("_M_engaged", "__engaged_"):
            engaged = bool(member)
        elif name in ("_M_value", "__val_"):
            held = member
        elif member.type.strip_typedefs().code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
            inner = optional_in(member)
            if isinstance(inner, tuple):
                engaged, held = (new if new is not None else old for new, old in zip(inner, (engaged, held)))
    return engaged, held


def shared_state(call):
    engaged, held = optional_in(call["shared"])
    return held if engaged else None


def thread_name(identity):
    """gdb's number of the thread that a std::thread::id names."""
    handle = next(member for _, member in members(identity))
    if int(handle) == 0:
        return "nobody yet"
    thread = gdb.selected_inferior().thread_from_handle(handle)
    return f"thread {thread.num}" if thread is not None else f"thread {int(handle):#x}"


def count(number, noun):
    return f"{number} {noun}" + ("" if number == 1 else "s")


class CallPrinter:
    """`2 waiters, led by thread 3`"""

    def __init__(self, value):
        self.value = value

    def to_string(self):
        shared = shared_state(self.value)
        waiters = int(shared["waiters"]) if shared is not None else 0
        return f"{count(waiters, 'waiter')}, led by {thread_name(self.value['leader'])}"


class GroupPrinter:
    """`singleflight::group, 2 calls listed, 3 in flight, 2 waiting, ...`, and the listed calls by key."""

    def __init__(self, value):
        self.value = value

    def shards(self):
        shards = self.value["shards_"]
        return (shards["first_"][i] for i in range(int(shards["mask_"]) + 1))

    def calls(self):
        for shard in self.shards():
            buckets = pointer_in(shard["buckets_"])
            for i in range(int(shard["bucket_count_"])):
                call = buckets[i]
                while int(call) != 0:
                    yield call.dereference()
                    call = call["next"]

    def to_string(self):
        listed, sums = 0, {}
        for shard in self.shards():
            listed += int(shard["listed_"])
            for name, counter in members(shard["stats_"]):
                sums[name] = sums.get(name, 0) + int(counter)
        gauges = f"{sums.pop('in_flight')} in flight, {sums.pop('waiting')} waiting"
        counters = ", ".join(f"{name} {number}" for name, number in sums.items())
        return f"singleflight::group, {count(listed, 'call')} listed, {gauges}; {counters}"

    def children(self):
        for i, call in enumerate(self.calls()):
            yield f"key {i}", call["key"]
            yield f"call {i}", call

    def display_hint(self):
        return "map"


class ResultPrinter:
    """`singleflight::result, led, shared`, and the value."""

    def __init__(self, value):
        self.value = value.referenced_value() if value.type.code == gdb.TYPE_CODE_REF else value

    def to_string(self):
        led = "led" if self.value["led_"] else "joined"
        return f"singleflight::result, {led}, {'shared' if self.value['shared_'] else 'not shared'}"

    def children(self):
        if any(field.name == "held_" for field in self.value.type.strip_typedefs().fields()):
            yield "value", self.value["held_"]


printers = gdb.printing.RegexpCollectionPrettyPrinter("singleflight")
printers.add_printer("group", r"^singleflight::(v\w+::)?group<.*>$", GroupPrinter)
printers.add_printer("result", r"^singleflight::(v\w+::)?result<.*>$", ResultPrinter)
printers.add_printer("call", r"^singleflight::(v\w+::)?detail::call<.*>$", CallPrinter)
gdb.printing.register_pretty_printer(None, printers, replace=True)
