"""What all clients of a history share."""

import threading
import time

from events import History, Random, key_bytes, read_value, value_bytes

# A send is given up after this.
DELIVERY_MS = 20_000
# One of a producer with idempotence, as long as by default: a library that gives one up begins another sequence, and
# may write twice what it had under way besides.
IDEMPOTENT_MS = 120_000
# An answer is waited for so long.
REQUEST_MS = 6_000
# Keys of the topic; each has one partition.
KEYS = 32
# Records of one event of a poll.
CHUNK = 500


class Run:
    def __init__(self, options):
        self.options = options
        self.servers = options["servers"]
        self.topic = options["topic"]
        self.partitions = options["partitions"]
        self.run = options["run"]
        self.seed = options["seed"]
        self.rate = options["rate"]
        self.life = options["life"]
        self.history = History()
        # Sources stop first, then groups come to their end.
        self.no_more_sends = threading.Event()
        self.draining = threading.Event()
        self.over = threading.Event()

    def random(self, number):
        return Random(self.seed ^ 0xCAFE ^ (number << 40))

    def lifetime(self, random):
        return time.monotonic() + self.life * (0.5 + random.below(100) / 100)

    def record(self, random, **fields):
        """Makes a record and writes the call down. Its number, partition, key and value."""
        key = random.below(KEYS)
        partition = key % self.partitions
        size = 0 if random.below(8) else 100 + random.below(900)
        value = self.history.number()
        op = self.history.call("send", partition=partition, key=key, value=value, acks="all", **fields)
        return op, partition, key_bytes(key), value_bytes(self.run, partition, key, value, size)

    def seek(self, process, partition, offset=None):
        where = {} if offset is None else {"offset": offset}
        self.history.write("seek", process=process, partition=partition, **where)

    def polled(self, process, records, uncommitted=False):
        """Writes down records that came, (partition, epoch, offset, key, value) each, in their order. Those that are
        whole: (partition, epoch, offset, number)."""
        whole = []
        for partition, epoch, offset, key, value in records:
            try:
                whole.append((partition, epoch, offset, read_value(self.run, partition, key, value)))
            except ValueError as error:
                self.history.write(
                    "corrupt", process=process, partition=partition, offset=offset, what=str(error)
                )
        self.tell(process, whole, uncommitted)
        return whole

    def tell(self, process, whole, uncommitted=False):
        some, of = [], None
        for partition, epoch, offset, number in whole:
            if of != (partition, epoch) or len(some) >= CHUNK:
                self.poll(process, of, some, uncommitted)
                some, of = [], (partition, epoch)
            some.append([offset, number])
        self.poll(process, of, some, uncommitted)

    def poll(self, process, of, records, uncommitted):
        if not records:
            return
        fields = {"uncommitted": True} if uncommitted else {}
        partition, epoch = of
        self.history.write(
            "poll",
            process=process,
            partition=partition,
            epoch=-1 if epoch is None else epoch,
            high_watermark=-1,
            records=records,
            **fields,
        )
