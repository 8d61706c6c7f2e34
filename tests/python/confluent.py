"""confluent-kafka (librdkafka), unmodified: produce, read, administer. Arguments: HOST:PORT, number of nodes."""

import json
import sys
import time

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

SERVERS = {"bootstrap.servers": sys.argv[1]}
NODES = int(sys.argv[2])
TOPIC = "orders"


def done(futures):
    """Results of an admin call, by name."""
    return {key: future.result(10) for key, future in futures.items()}


def read(consumer, count):
    records, until = [], time.time() + 10
    while len(records) < count and time.time() < until:
        message = consumer.poll(0.5)
        if message is not None:
            assert message.error() is None, message.error()
            records.append(message)
    return records


def produce():
    failed = []
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        settings = {"enable.idempotence": True, "compression.type": codec, "linger.ms": 5}
        producer = Producer({**SERVERS, **settings})
        for n in range(200):
            producer.produce(
                TOPIC,
                key=b"key-%d" % (n % 10),
                value=b"%s-%d" % (codec.encode(), n),
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
        assert producer.flush(20) == 0
    assert not failed, failed


def consume():
    settings = {"group.id": "none", "enable.auto.commit": False}
    consumer = Consumer({**SERVERS, **settings})
    consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(3)])
    records = read(consumer, 1000)
    assert len(records) == 1000, len(records)
    by_key = {}
    for record in records:
        by_key.setdefault(record.key(), []).append(record)
    for key, own in by_key.items():
        assert len({record.partition() for record in own}) == 1, key
    ends = [consumer.get_watermark_offsets(TopicPartition(TOPIC, n), 5) for n in range(3)]
    assert sum(end for _, end in ends) == 1000 and {start for start, _ in ends} == {0}, ends
    consumer.seek(TopicPartition(TOPIC, 1, ends[1][1] - 5))
    assert len(read(consumer, 5)) == 5
    times = consumer.offsets_for_times([TopicPartition(TOPIC, 0, 0)], 5)
    assert times[0].offset == 0, times
    consumer.close()


def share(admin):
    """Two members of the new group protocol share the partitions, and commit."""
    group = "readers"
    settings = {"group.protocol": "consumer", "group.id": group, "enable.auto.commit": False}
    settings["auto.offset.reset"] = "earliest"
    first, second = Consumer({**SERVERS, **settings}), Consumer({**SERVERS, **settings})
    first.subscribe([TOPIC])
    assert len(read(first, 1000)) == 1000
    committed = first.commit(asynchronous=False)
    assert sum(place.offset for place in committed) == 1000, committed
    second.subscribe([TOPIC])
    until = time.time() + 30
    while time.time() < until and not (first.assignment() and second.assignment()):
        first.poll(0.1)
        second.poll(0.1)
    shares = [{place.partition for place in c.assignment()} for c in (first, second)]
    assert shares[0] and shares[1] and shares[0] | shares[1] == {0, 1, 2}, shares
    listed = admin.list_consumer_groups().result(10)
    assert group in {found.group_id for found in listed.valid}
    described = done(admin.describe_consumer_groups([group]))[group]
    assert len(described.members) == 2, described
    first.close()
    second.close()
    asked = [ConsumerGroupTopicPartitions(group)]
    offsets = done(admin.list_consumer_group_offsets(asked))[group].topic_partitions
    assert sum(place.offset for place in offsets) == 1000, offsets
    done(admin.delete_consumer_groups([group]))


def administer(admin):
    listed = admin.list_topics(timeout=5)
    assert len(listed.topics[TOPIC].partitions) == 3 and len(listed.brokers) == NODES
    topic = ConfigResource(ResourceType.TOPIC, TOPIC)
    change = ConfigEntry(
        "retention.ms", "1000000", incremental_operation=AlterConfigOpType.SET
    )
    changed = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=[change])
    done(admin.incremental_alter_configs([changed]))
    configs = done(admin.describe_configs([topic]))[topic]
    assert configs["retention.ms"].value == "1000000"
    assert len(admin.describe_cluster().result(10).nodes) == NODES
    newest = {TopicPartition(TOPIC, 0): OffsetSpec.max_timestamp()}
    assert all(found.offset >= 0 for found in done(admin.list_offsets(newest)).values())
    done(admin.delete_records([TopicPartition(TOPIC, 0, 10)]))
    earliest = {TopicPartition(TOPIC, 0): OffsetSpec.earliest()}
    assert [found.offset for found in done(admin.list_offsets(earliest)).values()] == [10]
    done(admin.create_partitions([NewPartitions(TOPIC, 5)]))
    described = done(admin.describe_topics(TopicCollection([TOPIC])))[TOPIC]
    assert len(described.partitions) == 5
    done(admin.delete_topics([TOPIC]))
    try:
        done(admin.describe_topics(TopicCollection([TOPIC])))
        raise AssertionError("a topic was described that there is not")
    except KafkaException:
        pass


def rest():
    """A client at rest asks once which of its metrics are wanted (KIP-714), and not again and again."""
    asked = []

    def count(statistics):
        brokers = json.loads(statistics)["brokers"].values()
        asked.append(sum(b["req"].get("GetTelemetrySubscriptions", 0) for b in brokers))

    producer = Producer({**SERVERS, "statistics.interval.ms": 100, "stats_cb": count})
    until = time.time() + 30
    # Ten looks after the first question: whoever asks in a circle has done so thousands of times.
    while time.time() < until and sum(n > 0 for n in asked) < 10:
        producer.poll(0.1)
    assert asked[-1] == 1, asked


def main():
    admin = AdminClient(SERVERS)
    done(admin.create_topics([NewTopic(TOPIC, 3, 1)]))
    produce()
    consume()
    share(admin)
    administer(admin)
    rest()
    print("ok")


main()
