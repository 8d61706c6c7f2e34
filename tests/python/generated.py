"""Drives steps.py with stubs generated from proto/ by grpcio-tools. Usage: generated.py HOST:PORT PROTO_DIR"""

import importlib
import pathlib
import sys
import tempfile

import grpc
from grpc_tools import protoc

import steps


def main():
    address, proto = sys.argv[1], sys.argv[2]
    with tempfile.TemporaryDirectory() as out:
        files = sorted(str(p) for p in pathlib.Path(proto).rglob("varve/v1/*.proto"))
        include = str(pathlib.Path(protoc.__file__).parent / "_proto")
        args = ["protoc", f"-I{proto}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}", *files]
        assert protoc.main(args) == 0, "protoc failed"
        sys.path.insert(0, out)
        names = [pathlib.Path(f).stem for f in files]
        messages = [importlib.import_module(f"varve.v1.{n}_pb2") for n in names]
        stubs = [importlib.import_module(f"varve.v1.{n}_pb2_grpc") for n in names]
        channel = grpc.insecure_channel(address)

        def new(name, **fields):
            module = next(m for m in messages if hasattr(m, name))
            return getattr(module, name)(**fields)

        def call(service, method, request):
            module = next(s for s in stubs if hasattr(s, service + "Stub"))
            return getattr(getattr(module, service + "Stub")(channel), method)(request, timeout=30)

        steps.run(call, new)


main()
