"""The two threads of a stream: started together, each with its share of the cores, and ended before Python is."""

import atexit
import queue
import threading
from collections.abc import Callable

import torch

_changing = threading.Lock()  # guards what belongs to the process: torch's number of threads


def start_threads(
    work: Callable[[], None], produce: Callable[[], None], cancel: Callable[[], None]
) -> tuple[threading.Thread, threading.Thread]:
    """Starts worker and producer; `cancel` makes both of them end soon.

    torch's number of threads belongs to each thread, but setting it also changes what new threads start with. The
    worker lowers it for itself, the producer sets it back, and no other pair starts in between.
    """
    handshake: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run_worker() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the other cores belong to decoding
        handshake.put(threads)
        try:
            work()
        finally:
            atexit.unregister(end)

    def run_producer() -> None:
        torch.get_num_threads()  # at its first use a thread takes the process's number, which another stream may be changing
        torch.set_num_threads(threads)
        handshake.put(threads)
        produce()

    def end() -> None:
        """At exit: Python would kill the threads inside torch, which aborts the process."""
        cancel()
        producer.join()
        worker.join()

    worker = threading.Thread(target=run_worker, name="eyeline-worker", daemon=True)
    producer = threading.Thread(target=run_producer, name="eyeline-producer", daemon=True)
    atexit.register(end)
    with _changing:
        worker.start()
        threads = handshake.get()
        producer.start()
        handshake.get()
    return worker, producer
