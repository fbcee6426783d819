"""A connection that breaks: a proxy of TCP that closes it after so many bytes."""

from __future__ import annotations

import socket
import threading
from typing import Self

from tests.ports import find_free_port

CHUNK_BYTES = 65_536


class CuttingProxy:
    """Hands on every byte to a port of 127.0.0.1 and back, until it is told to cut. Threads; ends with its `with`."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", find_free_port()))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._up_after_bytes: int | None = None
        self._down_after_bytes: int | None = None
        self._cuts_left = 0
        self.cut_count = 0
        #: Sent to the client since the last `cut`.
        self.down_bytes = 0
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def cut(self, *, up_after_bytes: int | None = None, down_after_bytes: int | None = None, times: int) -> None:
        """From now on, cut a connection when so much has gone that way through it; so often."""
        with self._lock:
            self._up_after_bytes, self._down_after_bytes = up_after_bytes, down_after_bytes
            self._cuts_left = times
            self.cut_count = self.down_bytes = 0
        self._close_connections()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *args: object) -> None:
        # Closing alone does not wake who waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._close_connections()
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._upstream))
            self._sockets += [client, server]
            self._start(self._pump, client, server, True)
            self._start(self._pump, server, client, False)

    def _pump(self, source: socket.socket, destination: socket.socket, is_up: bool) -> None:
        count = 0
        try:
            while data := source.recv(CHUNK_BYTES):
                destination.sendall(data)
                count += len(data)
                if self._must_cut(count, len(data), is_up):
                    break
        except OSError:
            pass
        for each in (source, destination):
            _shut_down(each)

    def _must_cut(self, count: int, new: int, is_up: bool) -> bool:
        with self._lock:
            if not is_up:
                self.down_bytes += new
            limit = self._up_after_bytes if is_up else self._down_after_bytes
            if limit is None or count < limit or not self._cuts_left:
                return False
            self._cuts_left -= 1
            self.cut_count += 1
            return True

    def _close_connections(self) -> None:
        for each in self._sockets:
            _shut_down(each)


def _shut_down(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
