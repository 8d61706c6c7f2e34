"""Drives steps.py with nothing but what the server's reflection tells. Usage: reflected.py HOST:PORT"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import steps


def main():
    channel = grpc.insecure_channel(sys.argv[1])
    database = ProtoReflectionDescriptorDatabase(channel)
    services = set(database.get_services())
    assert "varve.v1.ProducerService" in services and "grpc.health.v1.Health" in services, services
    pool = descriptor_pool.DescriptorPool(database)

    def cls(descriptor):
        return message_factory.GetMessageClass(descriptor)

    def new(name, **fields):
        return cls(pool.FindMessageTypeByName("varve.v1." + name))(**fields)

    def call(service, method, request):
        found = pool.FindServiceByName("varve.v1." + service).methods_by_name[method]
        make = channel.unary_stream if found.server_streaming else channel.unary_unary
        stub = make(
            f"/varve.v1.{service}/{method}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=cls(found.output_type).FromString,
        )
        return stub(request, timeout=30)

    steps.run(call, new)


main()
