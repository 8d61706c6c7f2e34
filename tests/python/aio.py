"""aiokafka, unmodified: keyed and idempotent sends, a group of two that shares partitions and goes on where it stopped,
transactions with readers of committed records, positions by time. Arguments: HOST:PORT and the number of nodes."""

import asyncio
import json
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

SERVERS = sys.argv[1]
PARTITIONS = 4


async def make(*names):
    admin = AIOKafkaAdminClient(bootstrap_servers=SERVERS)
    await admin.start()
    topics = [NewTopic(name, num_partitions=PARTITIONS, replication_factor=1) for name in names]
    await admin.create_topics(topics)
    assert set(names) <= set(await admin.list_topics())
    await admin.close()


def consumer(*topics, **settings):
    return AIOKafkaConsumer(
        *topics,
        bootstrap_servers=SERVERS,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        value_deserializer=json.loads,
        **settings,
    )


async def read(member, wanted, seconds=30):
    """What it reads until it has so many, or the time is over."""
    found = []
    until = asyncio.get_running_loop().time() + seconds
    while len(found) < wanted and asyncio.get_running_loop().time() < until:
        for records in (await member.getmany(timeout_ms=300, max_records=50)).values():
            found.extend(records)
    return found


async def produce(topic):
    for codec in (None, "gzip"):
        producer = AIOKafkaProducer(
            bootstrap_servers=SERVERS,
            acks="all",
            enable_idempotence=True,
            compression_type=codec,
            value_serializer=lambda value: json.dumps(value).encode(),
        )
        await producer.start()
        places = {}
        for n in range(100):
            key = f"key-{n % 10}".encode()
            done = await producer.send_and_wait(topic, {"n": n}, key=key, headers=[("h", b"v")])
            assert places.setdefault(key, done.partition) == done.partition, "a key has one partition"
        await producer.stop()


async def share(topic):
    """Two members own all partitions, each one once; who comes later goes on at what was committed."""
    members = [consumer(topic, group_id="aio", heartbeat_interval_ms=300) for _ in range(2)]
    for member in members:
        await member.start()
    until = asyncio.get_running_loop().time() + 30
    while not all(len(member.assignment()) == PARTITIONS // 2 for member in members):
        assert asyncio.get_running_loop().time() < until, [m.assignment() for m in members]
        await asyncio.gather(*(member.getmany(timeout_ms=200, max_records=1) for member in members))
    assert not members[0].assignment() & members[1].assignment()
    for member in members:
        await member.seek_to_beginning()
    found, until = [], asyncio.get_running_loop().time() + 30
    while len(found) < 200:
        assert asyncio.get_running_loop().time() < until, len(found)
        for half in await asyncio.gather(*(read(member, 200, seconds=0.5) for member in members)):
            found.extend(half)
    # Nothing comes twice, now or to the other one.
    for half in await asyncio.gather(*(read(member, 1, seconds=1) for member in members)):
        found.extend(half)
    assert len({(r.partition, r.offset) for r in found}) == len(found) == 200, len(found)
    for member in members:
        await member.commit()
        await member.stop()
    late = consumer(topic, group_id="aio")
    await late.start()
    assert await read(late, 1, seconds=2) == []
    await late.stop()


async def transact(topic):
    producer = AIOKafkaProducer(bootstrap_servers=SERVERS, transactional_id="aio-1")
    await producer.start()
    for n in range(4):
        await producer.begin_transaction()
        await producer.send_and_wait(topic, json.dumps(n).encode(), partition=0)
        offsets = {TopicPartition(topic, 0): n + 1}
        await producer.send_offsets_to_transaction(offsets, "aio-transactions")
        await (producer.commit_transaction() if n % 2 == 0 else producer.abort_transaction())
    await producer.stop()
    place = TopicPartition(topic, 0)
    reader = consumer(isolation_level="read_committed", group_id="aio-transactions")
    await reader.start()
    reader.assign([place])
    await reader.seek_to_beginning(place)
    assert [r.value for r in await read(reader, 2)] == [0, 2]
    assert await reader.committed(place) == 3
    found = await reader.offsets_for_times({place: 0})
    assert found[place].offset == 0
    await reader.stop()


async def main():
    await make("aio-plain", "aio-transactions")
    await produce("aio-plain")
    await share("aio-plain")
    await transact("aio-transactions")
    print("ok")


asyncio.run(main())
