"""kafka-python and confluent-kafka, unmodified, over TLS to a listener that asks for certificates. Arguments: HOST:PORT,
the CA, and the client's certificate and key."""

import sys
import time

from confluent_kafka import Consumer as ConfluentConsumer
from confluent_kafka import KafkaException
from confluent_kafka import Producer as ConfluentProducer
from confluent_kafka import TopicPartition as ConfluentPartition
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

SERVERS, CA, CERT, KEY = sys.argv[1:5]
TOPIC = "secret"

PYTHON = {"bootstrap_servers": SERVERS, "security_protocol": "SSL", "ssl_cafile": CA}
PYTHON_KNOWN = {**PYTHON, "ssl_certfile": CERT, "ssl_keyfile": KEY}
CONFLUENT = {"bootstrap.servers": SERVERS, "security.protocol": "SSL", "ssl.ca.location": CA}
CONFLUENT_KNOWN = {**CONFLUENT, "ssl.certificate.location": CERT, "ssl.key.location": KEY}


def by_python():
    producer = KafkaProducer(**PYTHON_KNOWN, acks="all")
    assert producer.send(TOPIC, b"python", partition=0).get(20).offset == 0
    producer.close()


def by_confluent():
    producer = ConfluentProducer(CONFLUENT_KNOWN)
    producer.produce(TOPIC, b"confluent", partition=0)
    assert producer.flush(20) == 0


def read_by_python():
    consumer = KafkaConsumer(**PYTHON_KNOWN, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(TOPIC, 0)])
    values, until = [], time.time() + 20
    while len(values) < 2 and time.time() < until:
        for some in consumer.poll(timeout_ms=500).values():
            values.extend(record.value for record in some)
    consumer.close()
    return values


def read_by_confluent():
    consumer = ConfluentConsumer({**CONFLUENT_KNOWN, "group.id": "readers"})
    consumer.assign([ConfluentPartition(TOPIC, 0, 0)])
    values, until = [], time.time() + 20
    while len(values) < 2 and time.time() < until:
        message = consumer.poll(0.5)
        if message is not None:
            assert message.error() is None, message.error()
            values.append(message.value())
    consumer.close()
    return values


def refused():
    """Without a certificate there is no answer to anything."""
    try:
        KafkaProducer(**PYTHON, bootstrap_timeout_ms=3000, max_block_ms=3000).send(TOPIC, b"x").get(3)
        raise AssertionError("kafka-python was served without a certificate")
    except KafkaError:
        pass
    try:
        ConfluentProducer({**CONFLUENT, "log_level": 0}).list_topics(timeout=3)
        raise AssertionError("confluent-kafka was served without a certificate")
    except KafkaException:
        pass


by_python()
by_confluent()
assert read_by_python() == [b"python", b"confluent"]
assert read_by_confluent() == [b"python", b"confluent"]
refused()
print("ok")
