"""Producers of both libraries. Each lives for a while and then ends: in order, or as one that is killed.

What a library says of a send is written down as it is said. An error of a send that was on its way is unknown: an
earlier attempt may have been written. Only what was never taken has certainly failed."""

import time

from confluent_kafka import KafkaException, Producer
from kafka import KafkaProducer
from kafka.errors import KafkaError

from run import DELIVERY_MS, IDEMPOTENT_MS, REQUEST_MS

IN_FLIGHT = 64
PAUSE = 0.2


def rd_settings(run, **more):
    return {
        "bootstrap.servers": run.servers,
        "socket.timeout.ms": REQUEST_MS,
        "reconnect.backoff.max.ms": 1000,
        **more,
    }


class RdProducer:
    """One life of a producer of librdkafka."""

    def __init__(self, run, idempotent, codec="none", delivery_ms=None):
        delivery_ms = delivery_ms or (IDEMPOTENT_MS if idempotent else DELIVERY_MS)
        settings = rd_settings(run, acks="all")
        settings |= {"enable.idempotence": idempotent, "linger.ms": 2, "compression.type": codec}
        settings |= {"message.timeout.ms": delivery_ms, "request.timeout.ms": REQUEST_MS}
        if idempotent:
            # Whether it gave its sequence up and began another, in the log: it may write twice what was under way then.
            settings["debug"] = "eos"
        self.producer = Producer(settings)
        self.run, self.idempotent = run, idempotent
        self.session = run.history.session()
        self.open, self.broken = 0, False

    def send(self, random):
        fields = {"session": self.session, "idempotent": self.idempotent}
        op, partition, key, value = self.run.record(random, **fields)
        try:
            report = lambda error, message: self.answered(op, error, message)
            self.producer.produce(self.run.topic, value, key, partition, on_delivery=report)
            self.open += 1
        except (BufferError, KafkaException) as error:
            self.run.history.fail(op, error)
            self.broken |= not isinstance(error, BufferError)

    def answered(self, op, error, message):
        self.open -= 1
        if error is None:
            self.run.history.ok(op, message.offset())
        else:
            self.run.history.unknown(op, error)
            self.broken = True

    def wait(self, seconds):
        self.producer.poll(seconds)

    def close(self, within):
        self.producer.flush(within)

    def kill(self):
        forget(self.producer)


def forget(producer):
    """What is under way is answered by nobody."""
    try:
        producer.purge()
        producer.poll(0)
    except KafkaException:
        # One that has failed for good says so once more.
        pass


class PyProducer:
    """One life of a producer of kafka-python."""

    def __init__(self, run, idempotent, codec=None, delivery_ms=None):
        delivery_ms = delivery_ms or (IDEMPOTENT_MS if idempotent else DELIVERY_MS)
        self.producer = KafkaProducer(
            bootstrap_servers=run.servers.split(","),
            acks="all",
            enable_idempotence=idempotent,
            compression_type=codec,
            linger_ms=2,
            request_timeout_ms=REQUEST_MS,
            delivery_timeout_ms=delivery_ms,
            max_block_ms=5_000,
            bootstrap_timeout_ms=5_000,
            reconnect_backoff_max_ms=1_000,
        )
        self.run, self.idempotent = run, idempotent
        self.session = run.history.session()
        self.futures, self.broken = [], False

    @property
    def open(self):
        self.futures = [future for future in self.futures if not future.is_done]
        return len(self.futures)

    def send(self, random):
        fields = {"session": self.session, "idempotent": self.idempotent}
        op, partition, key, value = self.run.record(random, **fields)
        try:
            future = self.producer.send(self.run.topic, value, key, partition=partition)
        except (KafkaError, RuntimeError) as error:
            # It may say so of a record that it has taken: nobody knows.
            self.run.history.unknown(op, repr(error))
            self.broken = True
            return
        self.futures.append(future)
        future.add_callback(lambda told: self.run.history.ok(op, told.offset))
        future.add_errback(lambda error: self.failed(op, error))

    def failed(self, op, error):
        self.run.history.unknown(op, repr(error))
        self.broken = True

    def wait(self, seconds):
        time.sleep(seconds)

    def close(self, within):
        try:
            self.producer.flush(within)
        except KafkaError as error:
            self.run.history.note(f"kafka-python: flush: {error!r}")
        self.kill(within)

    def kill(self, within=0):
        try:
            self.producer.close(timeout=within)
        except KafkaError:
            # It says of what is still open what it says of every send.
            pass


def live(run, producer, random, every):
    """Sends until the life is over, the run stops, or a send failed: the order of what comes after one that failed is
    nobody's promise, so another session begins."""
    end, due = run.lifetime(random), time.monotonic()
    while not run.no_more_sends.is_set() and not producer.broken and time.monotonic() < end:
        now = time.monotonic()
        if now >= due and producer.open < IN_FLIGHT:
            producer.send(random)
            due = max(due + every, now - every)
        producer.wait(min(max(due - now, 0), 0.05) if producer.open < IN_FLIGHT else 0.02)
    if run.no_more_sends.is_set() or (not producer.broken and random.below(2)):
        producer.close(DELIVERY_MS / 1000 + 5)
    else:
        producer.kill()


def seat(run, number, make, every):
    """One producer after the other."""
    random = run.random(number)
    while not run.no_more_sends.is_set():
        try:
            producer = make()
        except (KafkaError, KafkaException) as error:
            run.history.note(f"no producer: {error!r}")
            time.sleep(PAUSE)
            continue
        live(run, producer, random, every)


def seats(run):
    """Producers of the run without transactions: what to call, each in a thread of its own."""
    makes = [
        lambda: RdProducer(run, True),
        lambda: RdProducer(run, True, "gzip"),
        lambda: RdProducer(run, False, "gzip"),
        lambda: PyProducer(run, True),
        lambda: PyProducer(run, True, "gzip"),
        lambda: PyProducer(run, False),
    ]
    every = len(makes) / max(run.rate * 0.75, 1)
    return [lambda n=n, make=make: seat(run, n, make, every) for n, make in enumerate(makes)]


def send_to_all(run):
    """When everything is repaired: sends of both libraries that must succeed."""
    random = run.random(99)
    for make in (RdProducer, PyProducer):
        producer = make(run, True, delivery_ms=60_000)
        for _ in range(10 * run.partitions):
            producer.send(random)
        producer.close(70)
