"""What the clients of a history write: its events, one JSON line each on standard output, and the bytes of records.

A call is written before it is made and its answer after it came, under one lock: the order of the lines is evidence.
The harness adds the time. The bytes of a record are those of `crates/workload/src/payload.rs`."""

import json
import sys
import threading

# Numbers of the harness itself stay far below.
FIRST_NUMBER = 1 << 40
MASK = (1 << 64) - 1


class Random:
    """The same numbers for the same seed as those of `crates/workload`."""

    def __init__(self, seed):
        self.state = (seed * 0x9E3779B97F4A7C15) & MASK | 1

    def below(self, limit):
        state = self.state
        state ^= (state << 13) & MASK
        state ^= state >> 7
        state ^= (state << 17) & MASK
        self.state = state
        return (state >> 11) % limit if limit else 0


def key_bytes(key):
    return b"key-%d" % key


def value_bytes(run, partition, key, value, size):
    text = bytearray(b"varve %x %d %d %d %d " % (run, partition, key, value, size))
    rotated = ((value << 17) | (value >> 47)) & MASK
    random = Random(run ^ rotated)
    while len(text) < size:
        text.append(97 + random.below(26))
    return bytes(text)


def read_value(run, partition, key, value):
    """The number of a record. Raises ValueError with what is wrong with it."""
    words = (value or b"").split(b" ", 6)
    if len(words) < 7 or words[0] != b"varve":
        raise ValueError(f"this run did not write its value: {value[:128] if value else value!r}")
    of, at, own, number, size = int(words[1], 16), *(int(word) for word in words[2:6])
    if at != partition:
        raise ValueError(f"value {number} was sent to partition {at}")
    if of != run or size > len(value) or value != value_bytes(run, at, own, number, size):
        raise ValueError(f"the bytes of value {number} were changed")
    if key != key_bytes(own):
        raise ValueError(f"value {number} has another key than it was sent with")
    return number


class History:
    """Writes events, and hands out numbers. Made for many threads."""

    def __init__(self):
        self.lock = threading.RLock()
        self.next = FIRST_NUMBER
        self.sessions = 0
        self.members = 0

    def write(self, kind, **fields):
        line = json.dumps({"type": kind, **fields}) + "\n"
        with self.lock:
            sys.stdout.write(line)
            sys.stdout.flush()

    def number(self):
        with self.lock:
            self.next += 1
            return self.next

    def session(self):
        with self.lock:
            self.sessions += 1
            return self.sessions

    def member(self):
        with self.lock:
            self.members += 1
            return self.members

    def call(self, kind, **fields):
        op = self.number()
        self.write(kind, op=op, **fields)
        return op

    def ok(self, op, offset=None):
        # A repeat that was recognised may have been told no offset.
        known = {} if offset is None or offset < 0 else {"offset": offset}
        self.write("ok", op=op, **known)

    def fail(self, op, error):
        self.write("fail", op=op, error=str(error))

    def unknown(self, op, error):
        self.write("unknown", op=op, error=str(error))

    def note(self, what):
        self.write("note", what=what)

    def wrong(self, what):
        """Something that no checker needs to look for: the run is wrong."""
        self.write("wrong", what=what)
