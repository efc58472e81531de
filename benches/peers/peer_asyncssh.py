"""One script on every host with asyncssh: peer_asyncssh.py FLEET ROUNDS [FILE TARGET]."""

import asyncio
import json
import sys

import asyncssh


async def main():
    fleet = json.load(open(sys.argv[1]))
    rounds, upload = int(sys.argv[2]), sys.argv[3:5]
    script = open(fleet["script"]).read()

    async def connect(port):
        return await asyncssh.connect(
            "127.0.0.1", port, username=fleet["user"], known_hosts=fleet["known_hosts"],
            client_keys=[fleet["key"]], agent_path=None, config=None,
        )

    async def one(connection, port):
        if upload:
            async with connection.start_sftp_client() as sftp:
                await sftp.put(upload[0], upload[1].format(port=port))
            return "Linux\n"
        return (await connection.run("sh -s", input=script, check=True)).stdout

    connections = await asyncio.gather(*map(connect, fleet["ports"]))
    async def each(connection, port):
        for _ in range(rounds):
            sys.stdout.write(await one(connection, port))

    await asyncio.gather(*map(each, connections, fleet["ports"]))
    for connection in connections:
        connection.close()
    await asyncio.gather(*(c.wait_closed() for c in connections))


asyncio.run(main())
