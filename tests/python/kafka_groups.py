"""Groups of kafka-python and confluent-kafka, unmodified: members share partitions, resume from what is committed, and
rebalance when one is gone. Argument: HOST:PORT."""

import json
import sys
import threading
import time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import CommitFailedError, RebalanceInProgressError
from kafka.structs import OffsetAndMetadata, TopicPartition

SERVERS = sys.argv[1]
PARTITIONS = 6


def fill(topic, begin, end):
    producer = KafkaProducer(
        bootstrap_servers=SERVERS,
        acks="all",
        key_serializer=str.encode,
        value_serializer=lambda value: json.dumps(value).encode(),
    )
    for n in range(begin, end):
        producer.send(topic, key=f"key-{n}", value={"n": n})
    producer.flush(20)
    producer.close()


def member(topic, group, **settings):
    return KafkaConsumer(
        topic,
        bootstrap_servers=SERVERS,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        value_deserializer=lambda value: json.loads(value)["n"],
        session_timeout_ms=30000,
        heartbeat_interval_ms=500,
        max_poll_records=50,
        **settings,
    )


def drain(consumer, wanted, seconds=30):
    """What it reads until it has so many, or there is nothing more in that time."""
    found, until = [], time.time() + seconds
    while len(found) < wanted and time.time() < until:
        for records in consumer.poll(timeout_ms=300).values():
            assert len(records) <= 50
            found.extend(record.value for record in records)
    return found


def resume(topic):
    """Reads some, commits, stops, and goes on where it was."""
    fill(topic, 0, 300)
    first = member(topic, "resume")
    read = drain(first, 100)
    first.commit()
    seen = set(read)
    first.close()
    second = member(topic, "resume")
    rest = drain(second, 300 - len(read))
    assert seen.isdisjoint(rest), "what was committed is not read again"
    assert seen | set(rest) == set(range(300)), len(seen | set(rest))
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    second.commit({place: OffsetAndMetadata(0, "again", -1) for place in places})
    assert second.committed(places[0], metadata=True).metadata == "again"
    second.close()


def share(topic):
    """Three members of one group own all partitions, each one once; when one is gone the others take over."""
    members = [member(topic, "share") for _ in range(3)]
    stop = [threading.Event() for _ in members]
    read = [set() for _ in members]

    def run(index):
        consumer = members[index]
        while not stop[index].is_set():
            for records in consumer.poll(timeout_ms=200).values():
                read[index].update(record.value for record in records)
            try:
                consumer.commit()
            except (CommitFailedError, RebalanceInProgressError):
                pass  # The group has moved on: the next poll joins it again.
        consumer.close()

    # A member that goes on must not outlive a check that has failed.
    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(3)]
    for thread in threads:
        thread.start()

    def settled(living):
        until = time.time() + 40
        while time.time() < until:
            owned = [members[index].assignment() for index in living]
            if all(owned) and sum(map(len, owned)) == len(set().union(*owned)) == PARTITIONS:
                return
            time.sleep(0.2)
        raise AssertionError([members[index].assignment() for index in living])

    settled([0, 1, 2])
    stop[0].set()
    threads[0].join()
    settled([1, 2])
    fill(topic, 300, 400)
    until = time.time() + 30
    while time.time() < until and not set(range(300, 400)) <= read[1] | read[2]:
        time.sleep(0.2)
    assert set(range(300, 400)) <= read[1] | read[2]
    for event in stop:
        event.set()
    for thread in threads[1:]:
        thread.join()


def librdkafka(topic, strategy):
    """Two members by librdkafka; the second one leaves."""
    group = f"c-{strategy}"
    settings = {
        "bootstrap.servers": SERVERS,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "partition.assignment.strategy": strategy,
        "session.timeout.ms": 30000,
        "heartbeat.interval.ms": 500,
    }
    consumers = [Consumer(settings) for _ in range(2)]
    for consumer in consumers:
        consumer.subscribe([topic])
    found = set()

    def step(living):
        for consumer in living:
            message = consumer.poll(0.05)
            if message is not None:
                assert message.error() is None, message.error()
                found.add(json.loads(message.value())["n"])

    def settled(living):
        until = time.time() + 40
        while time.time() < until:
            step(living)
            owned = [consumer.assignment() for consumer in living]
            places = [place.partition for some in owned for place in some]
            if all(owned) and sorted(places) == list(range(PARTITIONS)):
                return
        raise AssertionError([consumer.assignment() for consumer in living])

    settled(consumers)
    until = time.time() + 30
    while time.time() < until and len(found) < 400:
        step(consumers)
    assert found == set(range(400)), len(found)
    consumers[0].commit(asynchronous=False)
    consumers[1].close()
    settled(consumers[:1])
    consumers[0].close()


def look():
    """What is told of groups."""
    admin = AdminClient({"bootstrap.servers": SERVERS})
    listed = {group.group_id for group in admin.list_consumer_groups().result(10).valid}
    assert {"resume", "share", "c-range", "c-cooperative-sticky"} <= listed, listed
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("share")])
    offsets = asked["share"].result(10).topic_partitions
    assert sum(place.offset for place in offsets) == 400, offsets
    described = admin.describe_consumer_groups(["share"])["share"].result(10)
    assert (described.state.name, described.members) == ("EMPTY", []), described.state
    deleted = admin.delete_consumer_groups(["share"])
    deleted["share"].result(10)
    assert "share" not in {group.group_id for group in admin.list_consumer_groups().result(10).valid}


def main():
    admin = KafkaAdminClient(bootstrap_servers=SERVERS)
    admin.create_topics([NewTopic("shared", PARTITIONS, 1)])
    resume("shared")
    share("shared")
    for strategy in ["range", "cooperative-sticky"]:
        librdkafka("shared", strategy)
    admin.close()
    look()
    print("ok")


main()
