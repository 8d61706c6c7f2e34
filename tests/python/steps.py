"""What any client does with varve, written once against an abstract API: `call(service, method, request)`
returns the response message or an iterator of them, `new(name, **fields)` makes a message. The two drivers
beside this file supply them: one from stubs generated out of proto/, one from server reflection alone."""

import uuid


def run(call, new):
    topic = "py-" + uuid.uuid4().hex[:8]
    created = call("TopicService", "CreateTopic", new("CreateTopicRequest", topic=topic, partition_count=3))
    assert created.topic.partition_count == 3, created

    # Produce with keys: the server partitions; the same key always goes to the same partition.
    partition_of = {}
    for n in range(30):
        key = b"key-%d" % (n % 5)
        request = new("ProduceRequest", topic=topic)
        request.records.add(key=key, value=b"value-%d" % n)
        result = call("ProducerService", "Produce", request).results[0]
        assert result.appended.record_count == 1, result
        assert result.appended.flushed_replicas == 1, "acks=all of a fsync topic is flushed"
        assert partition_of.setdefault(key, result.partition) == result.partition

    # Fetch from an offset.
    partition = partition_of[b"key-0"]
    request = new("FetchRequest", topic=topic, partition=partition)
    request.start.offset = 2
    fetched = call("ConsumerService", "Fetch", request)
    assert fetched.records[0].offset == 2, fetched
    assert fetched.next_offset == fetched.high_watermark

    # Subscribe up to the end: every record once, each key in order.
    request = new("SubscribeRequest", topic=topic)
    request.end.current_end = True
    seen = {}
    for event in call("ConsumerService", "Subscribe", request):
        for record in event.records.records:
            seen.setdefault(record.key, []).append(int(record.value.split(b"-")[1]))
    assert sum(map(len, seen.values())) == 30, seen
    assert all(values == sorted(values) for values in seen.values()), seen

    group_round(call, new, topic, partition_of)
    errors(call, new, topic)
    print("ok")


def join(call, new, group, member, topic):
    """Joins until every partition is assigned; returns epoch and partitions."""
    request = new("HeartbeatRequest", group=group, member_id=member, member_epoch=0)
    request.subscription.topics.append(topic)
    request.owned.SetInParent()
    for _ in range(50):
        reply = call("GroupService", "Heartbeat", request)
        if reply.HasField("assignment"):
            owned = list(reply.assignment.partitions)
            request = new("HeartbeatRequest", group=group, member_id=member, member_epoch=reply.member_epoch)
            request.owned.partitions.extend(owned)
            request.max_wait.nanos = 100_000_000
            if len(owned) == 3:
                reply = call("GroupService", "Heartbeat", request)
                return reply.member_epoch, owned
        else:
            request = new("HeartbeatRequest", group=group, member_id=member, member_epoch=reply.member_epoch)
            request.max_wait.nanos = 100_000_000
    raise AssertionError("no assignment")


def group_round(call, new, topic, partition_of):
    """Joins a group, commits half, leaves, comes back as another member and resumes there."""
    group, member = "g-" + topic, str(uuid.uuid4())
    epoch, owned = join(call, new, group, member, topic)
    assert sorted(p.partition for p in owned) == [0, 1, 2]
    partition = partition_of[b"key-0"]
    commit = new("CommitOffsetsRequest", group=group, member_id=member, member_epoch=epoch)
    offset = commit.offsets.add(offset=3, metadata="half")
    offset.topic_partition.topic, offset.topic_partition.partition = topic, partition
    assert not call("GroupService", "CommitOffsets", commit).failures

    leave = new("HeartbeatRequest", group=group, member_id=member, member_epoch=epoch, leave=True)
    call("GroupService", "Heartbeat", leave)

    other = str(uuid.uuid4())
    join(call, new, group, other, topic)
    offsets = call("GroupService", "GetOffsets", new("GetOffsetsRequest", group=group, include_lag=True)).offsets
    assert [(o.topic_partition.partition, o.offset) for o in offsets] == [(partition, 3)], offsets
    request = new("FetchRequest", topic=topic, partition=partition)
    request.start.offset = offsets[0].offset
    resumed = call("ConsumerService", "Fetch", request)
    assert resumed.records[0].offset == 3
    assert offsets[0].lag == resumed.high_watermark - 3


def errors(call, new, topic):
    import grpc

    def fails(code, service, method, request):
        try:
            call(service, method, request)
        except grpc.RpcError as error:
            assert error.code() == code, (error.code(), error.details())
            return
        raise AssertionError(f"{method} did not fail")

    fails(grpc.StatusCode.NOT_FOUND, "TopicService", "GetTopic", new("GetTopicRequest", topic="no-such"))
    fails(grpc.StatusCode.ALREADY_EXISTS, "TopicService", "CreateTopic", new("CreateTopicRequest", topic=topic))
    request = new("FetchRequest", topic=topic, partition=0)
    request.start.offset = 10**9
    fails(grpc.StatusCode.OUT_OF_RANGE, "ConsumerService", "Fetch", request)
    for name in ["", "..", "x" * 250, "a/b", "__varve_x"]:
        fails(grpc.StatusCode.INVALID_ARGUMENT, "TopicService", "CreateTopic", new("CreateTopicRequest", topic=name))
