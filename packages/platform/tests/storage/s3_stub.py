"""A server that answers requests of S3 wrongly: with an error, too little, or nothing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """The bytes of a response, after which the connection may be closed."""

    data: bytes = b""
    closes: bool = False


HANGS = Answer()
RESETS = Answer(closes=True)


def answer(
    status: str, body: bytes = b"", *, length: int | None = None, closes: bool = False, fields: str = ""
) -> Answer:
    """Return a response; `length` announces another length than that of the body."""
    announced = len(body) if length is None else length
    head = (
        f"HTTP/1.1 {status}\r\nContent-Length: {announced}\r\n"
        f'Last-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\nETag: "1"\r\n{fields}\r\n'
    )
    return Answer(head.encode() + body, closes)


class S3Stub:
    """Gives the answers in turn, and the last one again and again; `requests` are the heads that it received."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = list(answers)
        self.requests: list[str] = []
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.requests.append(head)
                lines = head.lower().split("\r\n")
                length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
                await reader.readexactly(length)
                given = self.answers[0]
                del self.answers[: len(self.answers) > 1]
                writer.write(given.data)
                await writer.drain()
                if given.closes:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()


@asynccontextmanager
async def serving(*answers: Answer) -> AsyncIterator[S3Stub]:
    """Serve the answers on a port of 127.0.0.1 while the block lasts."""
    stub = S3Stub(answers)
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    stub.address = f"http://{host}:{port}"
    try:
        yield stub
    finally:
        server.close()
