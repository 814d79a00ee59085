"""Sends requests from inside the cluster; runs in a pod as one file, with nothing but Python's own library.

    once                one request: the first line of standard input is a JSON object that says what to do
    start NAME          a stream of them, told the same way; goes on by itself, whatever becomes of who started it
    stop NAME           ends the stream and waits for what is under way
    await NAME          waits until the stream has ended by itself

The last line of standard output is a JSON report (of `start`: that it began). `start`, `stop` and `await` may be said twice.
"""

import asyncio
import base64
import json
import os
import signal
import sys
import time

FOLDER = "/dev/shm"  # the only place that every container may write to
LOOK_EVERY_S = 0.02
IDLE_S = 0.05
"""What a closed-loop client waits after an answer that is not 200: a refusal is no invitation to ask at once."""
KEPT_FAILURES = 500
AGAIN_AFTER_S = 0.1
"""A refused connection is tried again after this long, where that is asked for."""


class Connection:
    """One HTTP/1.1 connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer, self.reusable = reader, writer, True

    @classmethod
    async def open(cls, task):
        for _ in range(task.get("connect_retries", 0)):
            try:
                return cls(*await asyncio.open_connection(task["host"], task["port"]))
            except ConnectionRefusedError:
                await asyncio.sleep(AGAIN_AFTER_S)
        return cls(*await asyncio.open_connection(task["host"], task["port"]))

    async def ask(self, request):
        """Status and body of the answer."""
        self.writer.write(request)
        await self.writer.drain()
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int((await self.reader.readline()).split(b";")[0], 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readline()
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body = await self.reader.read()
            self.reusable = False
        self.reusable = self.reusable and headers.get("connection", "").lower() != "close"
        return status, body

    def close(self):
        self.writer.close()


class Traffic:
    """Requests, their answers, and what was wrong with them."""

    def __init__(self, task):
        self.task = task
        body = base64.b64decode(task.get("body_b64", ""))
        headers = {"Host": f"{task['host']}:{task['port']}", "Content-Length": str(len(body)), **task.get("headers", {})}
        if not self.keeps:
            headers["Connection"] = "close"
        lines = [
            f"{task.get('method', 'POST')} {task['path']} HTTP/1.1",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        self.idle = []
        self.sent = 0
        self.codes = {}
        self.failures = []
        self.failed = 0
        self.latencies_ms = []
        self.last = None
        self.began_s = time.monotonic()

    @property
    def keeps(self):
        return self.task.get("connection", "keep-alive") == "keep-alive"

    async def once(self):
        """One request, counted exactly once: as answered rightly or as failed."""
        self.sent += 1
        began_s = time.monotonic()
        connection, reused = None, False
        try:
            async with asyncio.timeout(self.task["timeout_s"]):
                connection = self.kept()
                reused = connection is not None
                connection = connection or await Connection.open(self.task)
                status, body = await connection.ask(self.request)
            self.last = (status, body)
            self.codes[status] = self.codes.get(status, 0) + 1
            problem = self.problem(status, body)
            if connection.reusable and self.keeps:
                self.idle.append(connection)
                connection = None
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            status, problem = 0, f"{type(error).__name__}: {error}" + (" (on a kept connection)" if reused else "")
        finally:
            if connection is not None:
                connection.close()
        if problem is None:
            self.latencies_ms.append((time.monotonic() - began_s) * 1000)
        else:
            self.failed += 1
            if len(self.failures) < KEPT_FAILURES:
                self.failures.append({"at_s": round(began_s - self.began_s, 3), "code": status, "problem": problem})
        return problem is None

    def kept(self):
        """A kept connection that its server has not closed, as HTTP clients look before they reuse one; None: there is none."""
        while self.idle:
            connection = self.idle.pop()
            if not connection.reader.at_eof():
                return connection
            connection.close()
        return None

    def problem(self, status, body):
        """What is wrong with an answer; None: nothing."""
        if status != 200:
            return f"status {status}: {body[:200].decode(errors='replace')}"
        wanted = self.task.get("expect_names")
        if wanted is None:
            return None
        try:
            names = sorted(item["name"] for image in json.loads(body)["images"] for item in image["results"])
        except (ValueError, KeyError, TypeError) as error:
            return f"an answer that is not of the expected shape: {error!r}"
        return None if names == sorted(wanted) else f"found {names}, expected {sorted(wanted)}"

    async def probe(self, stop):
        """Open loop: one request every 1/rate s, whatever becomes of those before."""
        pending = set()
        period_s = 1 / self.task["rate_per_s"]
        number = 0
        while not stop.is_set():
            pending.add(one := asyncio.create_task(self.once()))
            one.add_done_callback(pending.discard)
            number += 1
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + self.until(number * period_s)):
                    await stop.wait()
            except TimeoutError:
                pass
        await asyncio.gather(*pending)

    def until(self, since_begin_s):
        return max(0.0, self.began_s + since_begin_s - time.monotonic())

    async def load(self, stop):
        """Closed loop: each client sends its next request when it has the answer to the last."""

        async def client():
            while not stop.is_set():
                if not await self.once():
                    await asyncio.sleep(IDLE_S)

        await asyncio.gather(*(client() for _ in range(self.task["clients"])))

    def report(self):
        """The figures as JSON."""
        ordered = sorted(self.latencies_ms)

        def at(share):
            return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None

        status, body = self.last or (0, b"")
        return {
            "sent": self.sent,
            "answered": len(ordered),
            "failed": self.failed,
            "failures": self.failures,
            "codes": {str(code): count for code, count in sorted(self.codes.items())},
            "p50_ms": at(0.5),
            "p95_ms": at(0.95),
            "max_ms": at(1.0),
            "began_s": self.began_s,
            "duration_s": round(time.monotonic() - self.began_s, 3),
            "status": status,
            "body": body.decode(errors="replace") if self.task["mode"] == "once" else "",
        }


async def run(task, began=lambda: None):
    """The traffic from its begin to its report; SIGTERM ends a stream."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.call_later(task["limit_s"], stop.set)
    traffic = Traffic(task)
    began()
    if task["mode"] == "once":
        await traffic.once()
    else:
        await getattr(traffic, task["mode"])(stop)
    return json.dumps(traffic.report())


def file(name, kind):
    return f"{FOLDER}/traffic-{name}.{kind}"


def write(path, text):
    """Whole or not at all."""
    with open(path + ".new", "w") as new:
        new.write(text)
    os.rename(path + ".new", path)


def read(path):
    with open(path) as there:
        return there.read()


def start(name):
    """A process of its own, without a terminal or a pipe of anybody's."""
    task = json.loads(sys.stdin.readline())
    if os.path.exists(file(name, "pid")):
        return
    if child := os.fork():
        while not os.path.exists(file(name, "pid")):
            if os.waitpid(child, os.WNOHANG)[0]:
                raise SystemExit(read(file(name, "errors")))
            time.sleep(LOOK_EVERY_S)
        return
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    with open(file(name, "errors"), "w") as errors:
        for number, to in enumerate((nothing, nothing, errors.fileno())):
            os.dup2(to, number)
    write(file(name, "report"), asyncio.run(run(task, lambda: write(file(name, "pid"), str(os.getpid())))))
    os._exit(0)


def report(name, process):
    """What the stream said in the end.

    Raises:
        SystemExit: it ended without a report, with what it said instead.
    """
    while not os.path.exists(file(name, "report")):
        if is_over(process) and not os.path.exists(file(name, "report")):
            raise SystemExit(read(file(name, "errors")))
        time.sleep(LOOK_EVERY_S)
    return read(file(name, "report"))


def is_over(process):
    try:
        return read(f"/proc/{process}/stat").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def main(what, name=""):
    if what == "once":
        print(asyncio.run(run(json.loads(sys.stdin.readline()))))
        return
    if what == "start":
        start(name)
        print(json.dumps({"began": True}))
        return
    process = int(read(file(name, "pid")))
    if what == "stop" and not is_over(process):
        os.kill(process, signal.SIGTERM)
    print(report(name, process))


if __name__ == "__main__":
    main(*sys.argv[1:])
