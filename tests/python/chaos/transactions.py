"""Transactional producers of librdkafka: transactions that are committed, aborted, or left behind by a producer whose
successor has the same id.

Committed or aborted is what the library returned; while it says that the call may be made again, it is made again."""

import time

from confluent_kafka import KafkaException, Producer

from producers import PAUSE, forget, rd_settings

PRODUCERS = 2
RECORDS = 4
TIMEOUT_MS = 10_000
CALL = 10
END_WITHIN = 60
# Each producer sees so many ends of either kind, however slow the machine: once nothing is broken any more it goes on
# until it has, for at most so many seconds.
ENOUGH = 4
GO_ON = 45


class Gone(Exception):
    """This producer is of no use any more."""


class Tally:
    """How many transactions of one seat were committed (True) and aborted (False), and whether it is to go on."""

    def __init__(self, run):
        self.run, self.ends, self.until = run, {True: 0, False: 0}, None

    def go_on(self):
        if not self.run.no_more_sends.is_set():
            return True
        self.until = self.until or time.monotonic() + GO_ON
        return min(self.ends.values()) < ENOUGH and time.monotonic() < self.until

    def wait(self, seconds):
        """Waits, after the end of the history only a little."""
        if self.run.no_more_sends.wait(max(seconds, 0)):
            time.sleep(min(max(seconds, 0), 0.1))


class Session:
    def __init__(self, run, number, tally):
        settings = rd_settings(run, **{"transactional.id": f"{run.topic}-rd-{number}"})
        settings |= {"transaction.timeout.ms": TIMEOUT_MS, "message.timeout.ms": TIMEOUT_MS}
        settings |= {"linger.ms": 2, "request.timeout.ms": 6_000}
        self.run, self.producer, self.tally = run, Producer(settings), tally
        self.session = run.history.session()

    def begin(self):
        try:
            self.producer.begin_transaction()
        except KafkaException as error:
            raise Gone(str(error)) from error
        return self.run.history.number()

    def send(self, txn, random):
        fields = {"session": self.session, "idempotent": True, "txn": txn}
        op, partition, key, value = self.run.record(random, **fields)
        try:
            report = lambda error, message: self.answered(op, error, message)
            self.producer.produce(self.run.topic, value, key, partition, on_delivery=report)
        except (BufferError, KafkaException) as error:
            self.run.history.fail(op, error)

    def answered(self, op, error, message):
        if error is None:
            self.run.history.ok(op, message.offset())
        else:
            self.run.history.unknown(op, error)

    def end(self, txn, commit):
        """Ends a transaction. Raises Gone if nobody knows how it ended."""
        if commit:
            self.producer.flush(CALL)
        call = self.producer.commit_transaction if commit else self.producer.abort_transaction
        op = self.run.history.call("end_txn", txn=txn, commit=commit)
        until = time.monotonic() + END_WITHIN
        while True:
            try:
                call(CALL)
                self.run.history.ok(op)
                self.tally.ends[commit] += 1
                self.producer.poll(0)
                return
            except KafkaException as failure:
                error = failure.args[0]
                if error.retriable() and time.monotonic() < until:
                    continue
                # The call may have been on its way before: only what an abort says is certain.
                self.run.history.unknown(op, error)
                if commit and error.txn_requires_abort():
                    return self.end(txn, False)
                raise Gone(str(error)) from failure

    def kill(self):
        forget(self.producer)


def live(run, session, random, every):
    end, tally = run.lifetime(random), session.tally
    while tally.go_on() and time.monotonic() < end:
        started = time.monotonic()
        txn = session.begin()
        for _ in range(1 + random.below(2 * RECORDS)):
            session.send(txn, random)
            session.producer.poll(0)
        fate = random.below(40)
        if fate == 0:
            session.producer.flush(random.below(3))
            session.kill()
            return
        commit = fate > 10 and not (run.no_more_sends.is_set() and tally.ends[False] < ENOUGH)
        if not commit:
            # Some of what is taken back is in the logs.
            session.producer.flush(random.below(2))
        session.end(txn, commit)
        tally.wait(started + every - time.monotonic())


def seat(run, number):
    random = run.random(50 + number)
    every = PRODUCERS * RECORDS / max(run.rate * 0.25, 1)
    tally = Tally(run)
    while tally.go_on():
        session = Session(run, number, tally)
        try:
            session.producer.init_transactions(CALL)
            live(run, session, random, every)
        # The library's error may come up in whatever Python was doing when it was told of it.
        except (KafkaException, Gone, SystemError) as error:
            run.history.note(f"transactional producer {number} begins anew: {error}")
            session.kill()
            tally.wait(PAUSE)


def seats(run):
    return [lambda n=n: seat(run, n) for n in range(PRODUCERS)]
