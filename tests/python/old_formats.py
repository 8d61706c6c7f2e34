"""kafka-python, unmodified, told that the broker is as old as it can be told: records of magic 0 and 1. Arguments:
HOST:PORT, number of nodes."""

import sys
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

SERVERS = sys.argv[1]
TOPIC = "old"
RECORDS = [(b"a", b"one"), (None, b"two"), (b"", b""), (b"gone", None)]


def produce(version, codec):
    settings = {"api_version": version, "compression_type": codec, "linger_ms": 100}
    producer = KafkaProducer(bootstrap_servers=SERVERS, **settings)
    futures = [producer.send(TOPIC, key=key, value=value, partition=0) for key, value in RECORDS]
    producer.flush(20)
    offsets = [future.get(5).offset for future in futures]
    producer.close()
    return offsets


def main():
    begun = time.time() * 1000
    expected = []
    for version in [(0, 9), (0, 10)]:
        for codec in [None, "gzip"]:
            offsets = produce(version, codec)
            assert offsets == list(range(len(expected), len(expected) + 4)), offsets
            expected.extend(RECORDS)
    consumer = KafkaConsumer(bootstrap_servers=SERVERS, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(TOPIC, 0)])
    records, until = [], time.time() + 20
    while len(records) < len(expected) and time.time() < until:
        for some in consumer.poll(timeout_ms=500).values():
            records.extend(some)
    consumer.close()
    assert [(r.key, r.value) for r in records] == expected, records
    # Magic 0 has no timestamps: the records have that of their arrival.
    for record in records:
        assert begun - 60_000 < record.timestamp < time.time() * 1000 + 60_000, record
    print("ok")


main()
