"""A server in asyncio: each line that a client sends is a prompt, and the text comes back while it
is generated. Several clients are served at once; one that goes away ends its generation.

    python asyncio_handler.py 8765
    echo "Once upon a time" | nc localhost 8765
"""

from __future__ import annotations

import argparse
import asyncio

import gpt_edge

MAX_NEW_TOKENS = 60


async def handle(
    model: gpt_edge.Generator, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer one client until it closes its end."""
    try:
        while line := await reader.readline():
            prompt = line.decode("utf-8", "replace").rstrip("\r\n")
            try:
                async with model.astream(prompt, max_new_tokens=MAX_NEW_TOKENS) as stream:
                    async for piece in stream:
                        writer.write(piece.encode())
                        await writer.drain()  # raises if the client is gone: the block ends it
            except gpt_edge.GPTEdgeError as error:
                writer.write(f"error: {error.message}".encode())
            writer.write(b"\n")
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def serve(model: gpt_edge.Generator, port: int) -> asyncio.Server:
    """Listen on this machine alone. port: 0 takes a free one."""
    return await asyncio.start_server(lambda *ends: handle(model, *ends), "127.0.0.1", port)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Continue each line that a client sends.")
    parser.add_argument("port", type=int)
    server = await serve(gpt_edge.load(), parser.parse_args().port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
