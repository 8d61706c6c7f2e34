"""Readers of all partitions in both libraries, while things break and of everything at the end. librdkafka reads what
is committed, kafka-python what is not, too."""

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from kafka import KafkaConsumer
from kafka.errors import KafkaError as PyError
from kafka.structs import TopicPartition as Place

from producers import PAUSE, rd_settings
from run import REQUEST_MS

RD_READER, PY_READER = 100, 101
# Processes of the reads of everything, by library and turn.
FIRST_WHOLE = 2_500
WHOLE_WITHIN = 120
OUT_OF_RANGE = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)


class RdReader:
    uncommitted = False

    def __init__(self, run, positions):
        settings = rd_settings(run, **{"group.id": "nobody", "enable.auto.commit": False})
        settings |= {"isolation.level": "read_committed", "auto.offset.reset": "error"}
        settings |= {"enable.partition.eof": True, "check.crcs": True}
        self.run, self.consumer = run, Consumer(settings)
        self.ends = {}
        self.consumer.assign([TopicPartition(run.topic, n, at) for n, at in positions.items()])

    def read(self):
        """Records, in their order."""
        records = []
        for message in self.consumer.consume(500, 0.3):
            error, partition = message.error(), message.partition()
            if error is None:
                of = (partition, message.leader_epoch(), message.offset())
                records.append((*of, message.key(), message.value()))
            elif error.code() == KafkaError._PARTITION_EOF:
                self.ends[partition] = message.offset()
            elif error.code() in OUT_OF_RANGE:
                self.run.history.wrong(f"a reader of librdkafka, partition {partition}: {error}")
        return records

    def reached(self, partition):
        return self.ends.get(partition, 0)

    def close(self):
        self.consumer.close()


class PyReader:
    uncommitted = True

    def __init__(self, run, positions):
        self.run = run
        self.consumer = KafkaConsumer(
            bootstrap_servers=run.servers.split(","),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_uncommitted",
            request_timeout_ms=REQUEST_MS,
            bootstrap_timeout_ms=5_000,
            reconnect_backoff_max_ms=1_000,
        )
        self.consumer.assign([Place(run.topic, n) for n in positions])
        for partition, at in positions.items():
            self.consumer.seek(Place(run.topic, partition), at)

    def read(self):
        records = []
        for place, found in self.consumer.poll(300).items():
            for record in found:
                of = (place.partition, record.leader_epoch, record.offset)
                records.append((*of, record.key, record.value))
        return records

    def reached(self, partition):
        return self.consumer.position(Place(self.run.topic, partition), timeout_ms=1_000) or 0

    def close(self):
        self.consumer.close()


def seat(run, make, process):
    """A reader from the beginning on, now and then with other connections and from elsewhere."""
    random = run.random(process)
    positions = dict.fromkeys(range(run.partitions), 0)
    for partition in positions:
        run.seek(process, partition, 0)
    while not run.draining.is_set():
        try:
            reader = make(run, positions)
        except (PyError, KafkaException) as error:
            run.history.note(f"no reader: {error!r}")
            time.sleep(PAUSE)
            continue
        end = run.lifetime(random)
        try:
            while not run.draining.is_set() and time.monotonic() < end:
                for partition, _, offset, _ in run.polled(process, reader.read(), reader.uncommitted):
                    positions[partition] = offset + 1
            reader.close()
        except (PyError, KafkaException) as error:
            run.history.note(f"reader {process}: {error!r}")
            time.sleep(PAUSE)
        for partition, at in positions.items():
            if random.below(3) == 0:
                positions[partition] = random.below(at + 1)
                run.seek(process, partition, positions[partition])


def seats(run):
    return [lambda: seat(run, RdReader, RD_READER), lambda: seat(run, PyReader, PY_READER)]


def ends(run, within=30):
    """Where the logs end, transactions that are not decided with them."""
    until = time.monotonic() + within
    while True:
        consumer = Consumer(rd_settings(run, **{"group.id": "nobody", "isolation.level": "read_uncommitted"}))
        try:
            places = [TopicPartition(run.topic, n) for n in range(run.partitions)]
            return {place.partition: consumer.get_watermark_offsets(place, 5)[1] for place in places}
        except KafkaException as error:
            if time.monotonic() > until:
                raise RuntimeError(f"nobody says where the logs end: {error}") from error
            time.sleep(PAUSE)
        finally:
            consumer.close()


def read_all(run, make, process):
    """Reads everything, from the beginning to the end that the logs have now. What was seen: offsets by partition."""
    ops = {n: run.history.call("final", process=process, partition=n) for n in range(run.partitions)}
    until = time.monotonic() + WHOLE_WITHIN
    bounds, positions = ends(run), dict.fromkeys(range(run.partitions), 0)
    seen, behind = {n: set() for n in positions}, set(positions)
    while behind and time.monotonic() < until:
        try:
            reader = make(run, positions)
            silent = time.monotonic() + 20
            while behind and time.monotonic() < min(until, silent):
                found = reader.read()
                for partition, _, offset, _ in run.polled(process, found, reader.uncommitted):
                    positions[partition] = offset + 1
                    seen[partition].add(offset)
                    silent = time.monotonic() + 20
                behind = {n for n in behind if reader.reached(n) < bounds[n]}
            reader.close()
        except (PyError, KafkaException) as error:
            run.history.note(f"the read of everything by process {process}: {error!r}")
            time.sleep(PAUSE)
    for partition, op in ops.items():
        if partition in behind:
            run.history.unknown(op, f"reached {positions[partition]} of {bounds[partition]}")
            run.history.wrong(
                f"{make.__name__} read partition {partition} up to {positions[partition]} of {bounds[partition]} "
                f"in {WHOLE_WITHIN} s"
            )
        else:
            run.history.ok(op, bounds[partition])
    return seen


def read_by_both(run, turn):
    """What readers of committed records see."""
    seen = read_all(run, RdReader, FIRST_WHOLE + 2 * turn)
    read_all(run, PyReader, FIRST_WHOLE + 2 * turn + 1)
    return seen
