"""Where the page is listened for, and what a browser is told of it."""

from __future__ import annotations

import socket

from tstitch_cli.errors import UsageError

LOOPBACK = ("127.0.0.1", "localhost")


def listening(host: str, port: int) -> socket.socket:
    """A socket at that address; port 0 is any free one.

    Raises UsageError where there is no such address here, or somebody else listens there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen()
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise UsageError(
            f"the page cannot be shown at {host}, port {port}: {error.strerror or error}",
            hint="give another --port, 0 for any that is free, or another --host",
        ) from error
    return found


def address_of(listener: socket.socket, host: str) -> str:
    """Where the page is, for a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
