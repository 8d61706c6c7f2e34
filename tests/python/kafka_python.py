"""kafka-python, unmodified: produce, read from places, administer. Arguments: HOST:PORT, number of nodes."""

import json
import sys
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import TopicAlreadyExistsError

SERVERS = sys.argv[1]
NODES = int(sys.argv[2])
TOPIC = "orders"


def read(consumer, count):
    """So many records, or what there is after ten seconds."""
    records, until = [], time.time() + 10
    while len(records) < count and time.time() < until:
        for some in consumer.poll(timeout_ms=500).values():
            records.extend(some)
    return records


def administer():
    admin = KafkaAdminClient(bootstrap_servers=SERVERS)
    admin.create_topics([NewTopic(TOPIC, 3, 1, topic_configs={"retention.ms": "86400000"})])
    try:
        admin.create_topics([NewTopic(TOPIC, 3, 1)])
        raise AssertionError("a topic was made twice")
    except TopicAlreadyExistsError:
        pass
    assert TOPIC in admin.list_topics()
    described = admin.describe_topics([TOPIC])[0]
    assert len(described["partitions"]) == 3, described
    configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)])
    assert "86400000" in str(configs), configs
    assert len(admin.describe_cluster()["brokers"]) == NODES
    return admin


def produce():
    producer = KafkaProducer(bootstrap_servers=SERVERS, acks="all", linger_ms=5)
    sent = {}
    for n in range(300):
        key = b"key-%d" % (n % 10)
        future = producer.send(TOPIC, key=key, value=b"value-%d" % n, headers=[("n", b"%d" % n)])
        sent.setdefault(key, []).append((n, future))
    producer.flush(20)
    for key, futures in sent.items():
        places = [future.get(5) for _, future in futures]
        # A key always goes to the same partition, and its order is kept.
        assert len({place.partition for place in places}) == 1
        offsets = [place.offset for place in places]
        assert offsets == sorted(offsets), (key, offsets)
    producer.close()
    for codec in ["gzip", "snappy", "lz4", "zstd"]:
        try:
            packed = KafkaProducer(bootstrap_servers=SERVERS, compression_type=codec)
        except (AssertionError, RuntimeError):
            continue  # The client lacks the codec.
        packed.send("packed", codec.encode() * 100).get(10)
        packed.close()
    idempotent = KafkaProducer(bootstrap_servers=SERVERS, enable_idempotence=True, acks="all")
    for n in range(100):
        idempotent.send("once", b"%d" % n)
    idempotent.flush(20)
    idempotent.close()


def consume():
    places = [TopicPartition(TOPIC, number) for number in range(3)]
    consumer = KafkaConsumer(bootstrap_servers=SERVERS, enable_auto_commit=False)
    consumer.assign(places)
    consumer.seek_to_beginning()
    records = read(consumer, 300)
    assert len(records) == 300, len(records)
    assert {r.value for r in records} == {b"value-%d" % n for n in range(300)}
    assert all(r.headers[0][0] == "n" for r in records)
    ends = consumer.end_offsets(places)
    assert sum(ends.values()) == 300, ends
    assert set(consumer.beginning_offsets(places).values()) == {0}
    busy = max(places, key=lambda place: ends[place])
    consumer.seek(busy, ends[busy] - 1)
    for place in places:
        if place != busy:
            consumer.seek(place, ends[place])
    last = read(consumer, 1)
    assert [(r.partition, r.offset) for r in last] == [(busy.partition, ends[busy] - 1)], last
    found = consumer.offsets_for_times({busy: last[0].timestamp, places[0]: 1 << 50})
    assert found[busy].offset <= last[0].offset
    assert found[places[0]] is None
    once = TopicPartition("once", 0)
    consumer.assign([once])
    consumer.seek_to_beginning(once)
    assert [r.value for r in read(consumer, 100)] == [b"%d" % n for n in range(100)]
    consumer.close()


class Last:
    """A partitioner of the program's own: one key has the last partition, all others the first. A function for the
    library's version 2, an object for version 3."""

    def __call__(self, key, everything, available):
        return max(everything) if key == b"last" else min(everything)

    def partition(self, topic, key, cluster):
        return self(key, cluster.partitions_for_topic(topic), None)

    def close(self):
        pass


def work(admin):
    """A program as people write them: objects, a partitioner of its own, replicas, a partition that rests."""
    admin.create_topics([NewTopic("jobs", 4, min(2, NODES))])
    partitions = admin.describe_topics(["jobs"])[0]["partitions"]
    assert all(len(p["replica_nodes"]) == min(2, NODES) for p in partitions), partitions
    producer = KafkaProducer(
        bootstrap_servers=SERVERS,
        acks="all",
        partitioner=Last(),
        key_serializer=str.encode,
        value_serializer=lambda value: json.dumps(value).encode(),
    )
    for n in range(40):
        producer.send("jobs", key="last" if n % 2 else "first", value={"n": n})
    producer.flush(20)
    producer.close()
    places = [TopicPartition("jobs", number) for number in range(4)]
    consumer = KafkaConsumer(
        bootstrap_servers=SERVERS,
        max_poll_records=7,
        value_deserializer=lambda value: json.loads(value.decode()),
    )
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    consumer.pause(places[3])
    assert consumer.paused() == {places[3]}
    first = read(consumer, 20)
    assert [r.value["n"] for r in first] == list(range(0, 40, 2)), first
    assert not consumer.poll(timeout_ms=300), "a partition that is paused gave something"
    consumer.resume(places[3])
    last, until = [], time.time() + 10
    while len(last) < 20 and time.time() < until:
        some = [r for records in consumer.poll(timeout_ms=500).values() for r in records]
        assert len(some) <= 7, "max_poll_records"
        last += some
    assert {r.partition for r in last} == {3}
    assert [r.value["n"] for r in last] == list(range(1, 40, 2)), last
    consumer.close()


def replicas(admin, number):
    partitions = admin.describe_topics([TOPIC])[0]["partitions"]
    found = [p["replica_nodes"] for p in partitions if p["partition_index"] == number]
    return list(found[0])


def look_after(admin):
    """What operators ask; older versions of the client lack some of it."""
    place = TopicPartition(TOPIC, 0)
    if hasattr(admin, "list_partition_reassignments"):
        nodes = admin.describe_log_dirs()
        assert len(nodes) == NODES, nodes
        sizes = [
            part["partition_size"]
            for node in nodes
            for directory in node["log_dirs"]
            for topic in directory["topics"]
            if topic["name"] == TOPIC
            for part in topic["partitions"]
        ]
        assert len(sizes) >= 3 and sum(sizes) > 0, nodes
        assert NODES > 1 or admin.list_partition_reassignments() == {}
    else:
        assert TOPIC in str(admin.describe_log_dirs())
    if hasattr(admin, "alter_partition_reassignments"):
        if NODES == 1:
            cancelled = admin.alter_partition_reassignments({place: None})
            assert cancelled == {place: errors.NoReassignmentInProgressError}, cancelled
        for node in range(1, NODES + 1):
            # Asked again until it is there: the cluster moves replicas by itself too, where nodes differ much.
            until = time.time() + 60
            while replicas(admin, 0) != [node]:
                assert admin.alter_partition_reassignments({place: [node]}) == {place: None}
                admin.list_partition_reassignments([place])
                assert time.time() < until
                time.sleep(0.05)
    if hasattr(admin, "describe_producers"):
        once = TopicPartition("once", 0)
        told = admin.describe_producers([once])[once]
        assert "last_sequence=99" in str(told), told


def until(done):
    ends = time.monotonic() + 60
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.05)


def main():
    admin = administer()
    produce()
    consume()
    work(admin)
    look_after(admin)
    admin.create_partitions({TOPIC: NewPartitions(5)})
    # Any node answers, and those that did not decide hear of it a moment later.
    until(lambda: len(admin.describe_topics([TOPIC])[0]["partitions"]) == 5)
    admin.delete_topics([TOPIC])
    until(lambda: TOPIC not in admin.list_topics())
    admin.close()
    print("ok")


main()
