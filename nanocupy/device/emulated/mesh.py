"""Sockets between all ranks, for the stand-in of NCCL. Nothing of them is in the file system."""

from __future__ import annotations

import hashlib
import hmac
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

PATIENCE = 60.0  # seconds until all ranks must be here
POLL = 0.0005  # seconds of a look at what others have sent
MOST = 1 << 20  # bytes at a time
_SIZE = struct.Struct("<q")
_HELLO = struct.Struct("<32sqq")  # proof of knowing the secret, rank, ranks


class Mesh:
    """This rank's ends of a socket to every other rank. Made by all ranks at once.

    Args:
        ranks: how many there are.
        secret: bytes that nobody else knows, the same on all ranks.

    Raises:
        OSError: some rank did not come in time; or one is there twice.
        ValueError: another rank counts other ranks.
    """

    def __init__(self, ranks: int, secret: bytes, rank: int) -> None:
        self._rank, self._lock = rank, threading.Lock()
        self._peers: dict[int, _Peer] = {}
        self._mine: bytes | None = None  # what this rank gives, while an exchange is under way
        hello = hashlib.sha256(b"hello" + secret).digest()
        end = time.monotonic() + PATIENCE
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(_address(secret, rank))
                server.listen(ranks)
                for peer in range(rank):
                    self._peers[peer] = _Peer(_call(_address(secret, peer), end))
                    self._peers[peer].socket.sendall(_HELLO.pack(hello, rank, ranks))
                while len(self._peers) < ranks - 1:
                    self._accept(server, hello, ranks, end)
        except BaseException:
            self.close()
            raise
        for found in self._peers.values():
            found.socket.setblocking(False)

    def _accept(self, server: socket.socket, hello: bytes, ranks: int, end: float) -> None:
        server.settimeout(max(0.01, end - time.monotonic()))
        caller, _ = server.accept()
        caller.settimeout(1.0)
        with suppress(OSError):  # of a stranger
            said, rank, count = _HELLO.unpack(caller.recv(_HELLO.size, socket.MSG_WAITALL))
            if hmac.compare_digest(said, hello):
                self._peers[rank] = _Peer(caller)
                if count != ranks:
                    raise ValueError(f"{ranks} ranks here, {count} for rank {rank}")
                return
        caller.close()

    def exchange(self, make: Callable[[], bytes]) -> list[bytes] | None:
        """What each rank gives, by rank; None: not all have, call again.

        Args:
            make: what this rank gives; called once an exchange.

        Raises:
            OSError: a rank is gone; or this end was closed.
        """
        with self._lock:
            if self._mine is None:
                self._mine = make()
                for peer in self._peers.values():
                    peer.begin(self._mine)
            while waiting := [p for p in self._peers.values() if not p.done]:
                readable, writable, _ = select.select(
                    [p for p in waiting if not p.whole], [p for p in waiting if p.unsent], [], POLL
                )
                if not readable and not writable:
                    return None
                for peer in writable:
                    peer.send()
                for peer in readable:
                    peer.receive()
            parts = {rank: peer.message for rank, peer in self._peers.items()}
            parts[self._rank], self._mine = self._mine, None
            return [parts[rank] for rank in range(len(parts))]

    def close(self) -> None:
        """Hang up. Idempotent; from any thread."""
        with self._lock:
            for peer in self._peers.values():
                peer.socket.close()


class _Peer:
    """A message each way, at a time."""

    def __init__(self, to: socket.socket) -> None:
        self.socket = to
        self.unsent = memoryview(b"")
        self._got = bytearray()

    def fileno(self) -> int:
        if self.socket.fileno() < 0:
            raise ConnectionError("closed")
        return self.socket.fileno()

    def begin(self, message: bytes) -> None:
        self.unsent = memoryview(_SIZE.pack(len(message)) + message)
        self._got.clear()

    def send(self) -> None:
        self.unsent = self.unsent[self.socket.send(self.unsent[:MOST]) :]

    def receive(self) -> None:
        part = self.socket.recv(min(self._missing, MOST))
        if not part:
            raise ConnectionError("the other rank is gone")
        self._got += part

    @property
    def _missing(self) -> int:
        if len(self._got) < _SIZE.size:
            return _SIZE.size - len(self._got)
        return _SIZE.size + int(_SIZE.unpack_from(self._got)[0]) - len(self._got)

    @property
    def whole(self) -> bool:
        return self._missing == 0

    @property
    def done(self) -> bool:
        return self.whole and not self.unsent

    @property
    def message(self) -> bytes:
        return bytes(memoryview(self._got)[_SIZE.size :])


def _address(secret: bytes, rank: int) -> bytes:
    """In Linux's abstract namespace: no file, and gone with the socket."""
    return b"\0nanocupy-" + hashlib.sha256(secret + _SIZE.pack(rank)).hexdigest().encode()


def _call(address: bytes, end: float) -> socket.socket:
    """A connection, as soon as somebody listens."""
    while True:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.connect(address)
            return made
        except OSError:
            made.close()
            if time.monotonic() > end:
                raise
        time.sleep(0.002)
