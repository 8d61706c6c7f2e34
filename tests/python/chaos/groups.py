"""Groups whose members commit by themselves what they have processed, come, go and are killed: one of both libraries
with the classic protocol, one of librdkafka with the new one.

A group never goes back behind a commit that was accepted, and all its members together process everything."""

import threading
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition
from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka.errors import KafkaError as PyError
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as Place

from producers import PAUSE, rd_settings
from run import REQUEST_MS

MEMBERS = 10_000
# All members of a group together, as one reader.
TOGETHER = 3_000
COMMIT_EVERY = 0.7
SETTLE_WITHIN = 120
# Members of each group; groups that are shuffled all the time would read nothing.
LEAST_LIFE = 12


class Group:
    def __init__(self, run, number, name):
        self.run, self.number, self.name = run, number, f"{run.topic}-{name}"
        self.lock = threading.Lock()
        self.processed = {n: {} for n in range(run.partitions)}
        self.ops = {}

    def done(self, whole):
        with self.lock:
            for partition, epoch, offset, number in whole:
                self.processed[partition].setdefault(offset, (epoch, number))

    def missing(self, seen):
        with self.lock:
            return {n: sorted(offsets - self.processed[n].keys()) for n, offsets in seen.items()}

    def call_for_all(self):
        process = TOGETHER + self.number
        call = self.run.history.call
        self.ops = {n: call("final", process=process, partition=n) for n in self.processed}

    def settle(self, seen):
        """Waits until the members have processed what was seen, and says what they have processed."""
        until = time.monotonic() + SETTLE_WITHIN
        while any(self.missing(seen).values()) and time.monotonic() < until:
            time.sleep(0.2)
        for partition, offsets in self.missing(seen).items():
            if offsets:
                self.run.history.wrong(
                    f"group {self.name} did not process {len(offsets)} records of partition {partition} in "
                    f"{SETTLE_WITHIN} s, among them offset {offsets[0]}"
                )
        with self.lock:
            for partition, op in self.ops.items():
                records = sorted(self.processed[partition].items())
                whole = [(partition, epoch, at, number) for at, (epoch, number) in records]
                self.run.tell(TOGETHER + self.number, whole)
                end = max(seen[partition], default=-1) + 1
                self.run.history.ok(op, end)


class Member:
    """One life of one member: what it has processed and not committed yet."""

    def __init__(self, group):
        self.group, self.run = group, group.run
        self.number = group.run.history.member()
        self.due = {}

    def assigned(self, partitions):
        for partition in partitions:
            self.due.pop(partition, None)
            self.run.seek(MEMBERS + self.number, partition)

    def revoked(self, partitions):
        self.commit({n: self.due[n] for n in partitions if n in self.due})
        self.lost(partitions)

    def lost(self, partitions):
        for partition in partitions:
            self.due.pop(partition, None)

    def process(self, records):
        whole = self.run.polled(MEMBERS + self.number, records)
        self.group.done(whole)
        for partition, _, offset, _ in whole:
            self.due[partition] = offset + 1

    def commit(self, offsets):
        if not offsets:
            return
        history = self.run.history
        fields = {"group": self.group.name, "member": self.number}
        ops = {n: history.call("commit", partition=n, offset=at, **fields) for n, at in offsets.items()}
        for partition, error in self.ask_to_commit(offsets).items():
            if error is None:
                history.ok(ops[partition])
                if self.due.get(partition) == offsets[partition]:
                    del self.due[partition]
            else:
                history.unknown(ops[partition], error)


class RdMember(Member):
    def __init__(self, group, **more):
        super().__init__(group)
        settings = rd_settings(self.run, **{"group.id": group.name, "enable.auto.commit": False})
        settings |= {"auto.offset.reset": "earliest", "isolation.level": "read_committed", **more}
        self.consumer = Consumer(settings)
        numbers = lambda places: [place.partition for place in places]
        self.consumer.subscribe(
            [self.run.topic],
            on_assign=lambda _, places: self.assigned(numbers(places)),
            on_revoke=lambda _, places: self.revoked(numbers(places)),
            on_lost=lambda _, places: self.lost(numbers(places)),
        )

    def read(self):
        message = self.consumer.poll(0.2)
        if message is None or message.error():
            return []
        of = (message.partition(), message.leader_epoch(), message.offset())
        return [(*of, message.key(), message.value())]

    def ask_to_commit(self, offsets):
        places = [TopicPartition(self.run.topic, n, at) for n, at in offsets.items()]
        try:
            told = self.consumer.commit(offsets=places, asynchronous=False)
            return {place.partition: place.error for place in told}
        except KafkaException as error:
            return dict.fromkeys(offsets, error)

    def close(self):
        self.consumer.close()

    def kill(self):
        # The library knows no other end; without a commit it is that of a process that forgets.
        self.due.clear()
        self.consumer.close()


class PyMember(Member, ConsumerRebalanceListener):
    def __init__(self, group):
        super().__init__(group)
        self.consumer = KafkaConsumer(
            bootstrap_servers=self.run.servers.split(","),
            group_id=group.name,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
            request_timeout_ms=REQUEST_MS + 4_000,
            bootstrap_timeout_ms=5_000,
            reconnect_backoff_max_ms=1_000,
        )
        self.consumer.subscribe([self.run.topic], listener=self)

    def on_partitions_assigned(self, assigned):
        self.assigned([place.partition for place in assigned])

    def on_partitions_revoked(self, revoked):
        # It takes no commit in here: what is not committed is processed again.
        self.lost([place.partition for place in revoked])

    def on_partitions_lost(self, lost):
        self.lost([place.partition for place in lost])

    def read(self):
        records = []
        for place, found in self.consumer.poll(200).items():
            for record in found:
                of = (place.partition, record.leader_epoch, record.offset)
                records.append((*of, record.key, record.value))
        return records

    def ask_to_commit(self, offsets):
        places = {Place(self.run.topic, n): OffsetAndMetadata(at, "", -1) for n, at in offsets.items()}
        try:
            self.consumer.commit(places, timeout_ms=5_000)
            return dict.fromkeys(offsets)
        except PyError as error:
            return dict.fromkeys(offsets, repr(error))

    def close(self):
        self.consumer.close()

    def kill(self):
        self.due.clear()
        self.consumer.close(autocommit=False, timeout_ms=0)


def live(run, member, random):
    end = max(run.lifetime(random), time.monotonic() + LEAST_LIFE)
    commit = time.monotonic() + COMMIT_EVERY
    while not run.over.is_set() and (run.draining.is_set() or time.monotonic() < end):
        member.process(member.read())
        if time.monotonic() >= commit:
            member.commit(dict(member.due))
            commit = time.monotonic() + COMMIT_EVERY
    if run.over.is_set() or random.below(2):
        member.close()
    else:
        member.kill()


def seat(run, number, make):
    random = run.random(200 + number)
    while not run.over.is_set():
        member = None
        try:
            member = make()
            live(run, member, random)
        except (PyError, KafkaException) as error:
            why = f"{error!r}, {error.__cause__ or error.__context__!r}"
            run.history.note(f"a member of a group begins anew: {why}")
            if member is not None:
                end(member)
        time.sleep(PAUSE)


def end(member):
    """One that is only dropped would stay in the group: its heartbeats go on."""
    try:
        member.kill()
    except (PyError, KafkaException) as error:
        member.run.history.note(f"a member of a group left late: {error!r}")


def ask(run, groups):
    """Asks now and then what groups have committed, as somebody who is no member. (The admin client of librdkafka ends the
    process by an assertion when a coordinator does not answer in time.)"""
    random, askers = run.random(300), {}
    while not run.over.wait(0.3):
        group = groups[random.below(len(groups))]
        # One client asks for a while: it must find who knows whenever that changes.
        if group.name not in askers or random.below(50) == 0:
            settings = rd_settings(run, **{"group.id": group.name, "isolation.level": "read_committed"})
            askers[group.name] = Consumer(settings)
        partition = random.below(run.partitions)
        op = run.history.call("committed", group=group.name, partition=partition)
        try:
            found = askers[group.name].committed([TopicPartition(run.topic, partition)], 5)[0]
            if found.error is not None:
                raise KafkaException(found.error)
            run.history.ok(op, found.offset)
        except KafkaException as error:
            run.history.unknown(op, error)


def groups(run):
    return [Group(run, 0, "classic"), Group(run, 1, "consumer")]


def seats(run, groups):
    classic, new = groups
    old = {"session.timeout.ms": 6_000, "partition.assignment.strategy": "range"}
    makes = [
        lambda: RdMember(classic, **old),
        lambda: PyMember(classic),
        lambda: RdMember(new, **{"group.protocol": "consumer"}),
        lambda: RdMember(new, **{"group.protocol": "consumer"}),
    ]
    members = [lambda n=n, make=make: seat(run, n, make) for n, make in enumerate(makes)]
    return [*members, lambda: ask(run, groups)]
