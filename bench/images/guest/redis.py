# SPDX-License-Identifier: BSD-2-Clause
"""A redis server with sessions, profiles, timelines and a ranking, read, changed and saved."""
import json
import socket
import subprocess
import time

import common

SOCKET = "/run/redis.sock"
PROFILES = common.SCALE * 115
PIPELINE = 256  # commands sent before their answers are read


class Redis:
    """As much of a client as is needed: commands in pipelines, answers counted and dropped."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(SOCKET)
        self.answers = self.socket.makefile("rb")
        self.pending = []

    def send(self, *words):
        encoded = [str(word).encode() for word in words]
        self.pending.append(b"*%d\r\n" % len(words) +
                            b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
        if len(self.pending) == PIPELINE:
            self.flush()

    def flush(self):
        self.socket.sendall(b"".join(self.pending))
        for _ in self.pending:
            self.read_answer()
        self.pending.clear()

    def read_answer(self):
        line = self.answers.readline()
        kind, value = line[:1], line[1:]
        if kind == b"-" or not line:
            raise RuntimeError(f"redis: {line!r}")
        if kind == b"$" and int(value) >= 0:
            self.answers.read(int(value) + 2)
        if kind == b"*":
            for _ in range(int(value)):
                self.read_answer()


def start_server():
    subprocess.run(["redis-server", "--port", "0", "--unixsocket", SOCKET, "--save", "",
                    "--dir", "/var/lib/redis", "--daemonize", "yes"],
                   check=True, stdout=subprocess.DEVNULL)
    for _ in range(600):
        try:
            return Redis()
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("redis does not answer")


def session(data, user):
    return json.dumps({
        "user": user,
        "token": data.token(),
        "agent": data.random.choice(common.AGENTS),
        "created": 1704067200 + data.random.randrange(86400),
        "cart": [{"sku": f"SKU-{data.random.randrange(20000):05d}",
                  "title": data.text(40),
                  "quantity": data.random.randrange(1, 5),
                  "price": data.random.randrange(100, 20000) / 100}
                 for _ in range(data.random.randrange(4))],
        "draft": data.text(data.random.randrange(50, 900)),
    })


def load(redis, data):
    for user in range(PROFILES):
        person = data.person()
        redis.send("HSET", f"profile:{user}", *[part for item in person.items() for part in item])
        redis.send("ZADD", "ranking", data.random.randrange(10 ** 6), f"user:{user}")
        redis.send("SET", f"session:{user}", session(data, user))
        for _ in range(2):
            redis.send("LPUSH", f"timeline:{data.random.randrange(PROFILES // 8)}",
                       data.text(data.random.randrange(20, 280)))
    redis.flush()


def use(redis, data):
    for _ in range(PROFILES):
        user = int(PROFILES * data.random.random() ** 3)  # few users are much of the traffic
        kind = data.random.randrange(8)
        if kind == 0:
            redis.send("SET", f"session:{user}", session(data, user))
        elif kind == 1:
            redis.send("DEL", f"session:{data.random.randrange(PROFILES)}")
        elif kind == 2:
            redis.send("ZINCRBY", "ranking", 10, f"user:{user}")
        elif kind == 3:
            redis.send("LRANGE", f"timeline:{user // 8}", 0, 10)
        else:
            redis.send("GET", f"session:{user}")
    redis.send("SAVE")
    redis.flush()


def main():
    redis = start_server()
    data = common.Generator("redis")
    common.say("loading keys")
    load(redis, data)
    common.say("using them")
    use(redis, data)
    common.ready()


main()
