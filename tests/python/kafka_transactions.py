"""Transactions of kafka-python and confluent-kafka (librdkafka), unmodified: commit, abort, offsets that count with the
transaction, a producer that ends in the middle, one that is fenced. Arguments: HOST:PORT, number of nodes."""

import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata
from kafka.structs import TopicPartition as Place

ADDRESS = sys.argv[1]
NODES = int(sys.argv[2])
SERVERS = {"bootstrap.servers": ADDRESS}
PARTITIONS = 3
WAIT = 30


def create(*names):
    admin = AdminClient(SERVERS)
    topics = [NewTopic(name, PARTITIONS, min(NODES, 3)) for name in names]
    for future in admin.create_topics(topics).values():
        future.result(WAIT)


def visible(topic, isolation="read_committed"):
    """Values of a topic, as a reader of its end sees them."""
    consumer = Consumer(
        {**SERVERS, "group.id": f"look-{time.time()}", "isolation.level": isolation, "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, n, 0) for n in range(PARTITIONS)])
    values, ended, until = [], set(), time.time() + WAIT
    while len(ended) < PARTITIONS and time.time() < until:
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error():
            ended.add(message.partition())
        else:
            ended.discard(message.partition())
            values.append(message.value().decode())
    consumer.close()
    assert len(ended) == PARTITIONS, "the end of every partition is reached"
    return sorted(values)


def wait_for(topic, expected):
    until = time.time() + WAIT
    while visible(topic) != expected:
        assert time.time() < until, (topic, visible(topic), expected)
        time.sleep(0.1)


def with_librdkafka():
    producer = Producer({**SERVERS, "transactional.id": "rd", "compression.type": "lz4"})
    producer.init_transactions(WAIT)
    expected = []
    for round in range(6):
        producer.begin_transaction()
        values = [f"rd-{round}-{n}" for n in range(12)]
        for n, value in enumerate(values):
            producer.produce("rd-out", key=str(n), value=value)
        if round % 3 == 2:
            producer.abort_transaction(WAIT)
        else:
            producer.commit_transaction(WAIT)
            expected += values
    wait_for("rd-out", sorted(expected))
    assert len(visible("rd-out", "read_uncommitted")) >= len(expected)

    # A producer of the same id ends what another has left behind.
    producer.begin_transaction()
    producer.produce("rd-out", value="left behind")
    producer.flush(WAIT)
    successor = Producer({**SERVERS, "transactional.id": "rd"})
    successor.init_transactions(WAIT)
    try:
        producer.commit_transaction(WAIT)
        raise AssertionError("the first one is fenced")
    except KafkaException as error:
        assert error.args[0].fatal() or error.args[0].txn_requires_abort(), error
    wait_for("rd-out", sorted(expected))


def copy_with_librdkafka():
    """Reads, writes and commits what it has read, in one: stopped twice in the middle, nothing is there twice."""
    source = Producer({**SERVERS, "enable.idempotence": True})
    for n in range(60):
        source.produce("rd-in", key=str(n), value=str(n))
    assert source.flush(WAIT) == 0
    copied, turns = 0, 0
    while copied < 60:
        turns += 1
        assert turns < 100
        consumer = Consumer(
            {
                **SERVERS,
                "group.id": "copies / of everything",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "session.timeout.ms": 6000,
            }
        )
        consumer.subscribe(["rd-in"])
        producer = Producer({**SERVERS, "transactional.id": "copy: rd-in → rd-copy"})
        producer.init_transactions(WAIT)
        # A turn ends after two transactions; the first two turns in the middle of a third.
        for batch in range(3):
            until = time.time() + 5
            messages = []
            while len(messages) < 10 and time.time() < until:
                messages += [m for m in consumer.consume(10 - len(messages), 0.5) if not m.error()]
            if not messages:
                break
            producer.begin_transaction()
            for message in messages:
                producer.produce("rd-copy", key=message.key(), value=message.value())
            positions = consumer.position(consumer.assignment())
            producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), WAIT)
            if batch == 2 and turns <= 2:
                producer.flush(WAIT)
                break
            producer.commit_transaction(WAIT)
            copied += len(messages)
        consumer.close()
    wait_for("rd-copy", sorted(str(n) for n in range(60)))
    admin = AdminClient(SERVERS)
    listed = admin.list_consumer_groups(request_timeout=WAIT).result(WAIT)
    groups = [group.group_id for group in listed.valid]
    assert "copies / of everything" in groups, (groups, listed.errors)


def with_kafka_python():
    producer = KafkaProducer(bootstrap_servers=ADDRESS, transactional_id="py")
    producer.init_transactions()
    expected = []
    for round in range(6):
        producer.begin_transaction()
        values = [f"py-{round}-{n}" for n in range(12)]
        for n, value in enumerate(values):
            producer.send("py-out", key=str(n).encode(), value=value.encode())
        if round % 3 == 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
            expected += values
    wait_for("py-out", sorted(expected))
    consumer = KafkaConsumer(
        "py-out",
        bootstrap_servers=ADDRESS,
        group_id="py-readers",
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        consumer_timeout_ms=3000,
    )
    read = sorted(message.value.decode() for message in consumer)
    assert read == sorted(expected), read
    place = Place("py-out", 0)
    for offset, commit in [(3, False), (5, True), (7, False)]:
        producer.begin_transaction()
        producer.send("py-out", value=b"more", partition=0)
        offsets = {place: OffsetAndMetadata(offset, "", -1)}
        producer.send_offsets_to_transaction(offsets, "py-readers")
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    until = time.time() + WAIT
    while consumer.committed(place) != 5:
        assert time.time() < until, consumer.committed(place)
        time.sleep(0.1)
    consumer.close()
    producer.close()


def main():
    create("rd-out", "rd-in", "rd-copy", "py-out")
    with_librdkafka()
    copy_with_librdkafka()
    with_kafka_python()
    print("ok")


main()
