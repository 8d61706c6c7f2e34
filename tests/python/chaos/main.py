"""Kafka's clients in a history of real processes under faults: kafka-python and confluent-kafka (librdkafka),
unmodified, writing down what they saw. The argument is JSON: servers, topic, partitions, run, seed, rate, life.

Events go to standard output. Standard input says `stop` when nothing is broken any more (producers end, everything is
read, groups come to their end), then `finish` (sends that must succeed, everything is read again); each is
answered by a line `done`. The end of standard input ends everything."""

import faulthandler
import json
import os
import signal
import sys
import threading
import time
import traceback

import groups
import producers
import readers
import transactions
from run import Run

# A call that does not return must not keep the run from its end.
STOP_WITHIN = 90


def start(run, seats, what):
    def guarded(seat):
        try:
            seat()
        except Exception:
            # A client that fails in a way that nobody foresaw is looked at, not passed over.
            run.history.wrong(f"{what} ended early: {traceback.format_exc()}")

    threads = [threading.Thread(target=guarded, args=(seat,), daemon=True) for seat in seats]
    for thread in threads:
        thread.start()
    return threads


def join(run, threads, what):
    until = time.monotonic() + STOP_WITHIN
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    left = sum(thread.is_alive() for thread in threads)
    if left:
        faulthandler.dump_traceback(file=sys.stderr)
        run.history.wrong(f"{left} {what} did not stop in {STOP_WITHIN} s")


def work(run, commands):
    teams = groups.groups(run)
    sources = start(run, producers.seats(run) + transactions.seats(run), "a producer")
    eyes = start(run, readers.seats(run), "a reader")
    members = start(run, groups.seats(run, teams), "a member")
    expect(commands, "stop")
    run.no_more_sends.set()
    join(run, sources, "producers")
    run.draining.set()
    join(run, eyes, "readers")
    for team in teams:
        team.call_for_all()
    seen = readers.read_by_both(run, 0)
    for team in teams:
        team.settle(seen)
    run.over.set()
    join(run, members, "members")
    run.history.write("done")
    expect(commands, "finish")
    producers.send_to_all(run)
    readers.read_by_both(run, 1)
    run.history.write("done")
    expect(commands, "")


def expect(commands, word):
    line = commands.readline().strip()
    if line != word:
        # Whoever started this is gone.
        os._exit(0)


def main():
    faulthandler.register(signal.SIGUSR1, file=sys.stderr)
    run = Run(json.loads(sys.argv[1]))
    try:
        work(run, sys.stdin)
    except Exception:
        run.history.wrong(traceback.format_exc())
        sys.stderr.write(traceback.format_exc())
        os._exit(1)
    # Clients that hang must not keep the process.
    os._exit(0)


main()
