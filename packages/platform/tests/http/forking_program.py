"""Calls an upstream in a process, in a child that it forks, and in the parent again; prints the three statuses."""

import asyncio
import os
import sys

from tequipy_platform.http import HttpClients, HttpSettings, build_http_clients


async def call(http: HttpClients, url: str) -> int:
    return (await http.default.get(url)).status_code


def main(url: str) -> None:
    http = build_http_clients(HttpSettings(), app_name="shop", app_version="1")
    with asyncio.Runner() as parent:
        print(parent.run(call(http, url)), flush=True)
        if (child := os.fork()) == 0:
            with asyncio.Runner() as runner:
                print(runner.run(call(http, url)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(parent.run(call(http, url)), flush=True)


main(sys.argv[1])
