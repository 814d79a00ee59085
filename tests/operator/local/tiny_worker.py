"""A worker in 60 lines for tests of who starts, watches and ends workers: it answers its process id on both ports.

`TINY_WORKER` says how it behaves: `serve`, `fail` (exit 2 with a reason), `crash` (exit 7), `crash-once`, `stubborn` (ignores
SIGTERM).
"""

import argparse
import http.server
import os
import signal
import socket
import sys
import threading
from pathlib import Path


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def serve(fd: int) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=fd)
    server.socket.setblocking(True)
    server.socket.listen(64)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int)
    parser.add_argument("--control-fd", type=int)
    parser.add_argument("--termination-log", type=Path)
    told, _ = parser.parse_known_args()
    behaviour = os.environ.get("TINY_WORKER", "serve")
    print(f"started as {behaviour}", flush=True)
    if behaviour == "fail":
        told.termination_log.write_text("UnsupportedModel: no ONNX file\n")
        sys.exit(2)
    mark = told.termination_log.with_suffix(".mark")
    if behaviour == "crash" or (behaviour == "crash-once" and not mark.exists()):
        mark.touch()
        print("the last words", file=sys.stderr, flush=True)
        os._exit(7)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, (lambda *_: None) if behaviour == "stubborn" else (lambda *_: asked.set()))
    serve(told.control_fd)
    serve(told.fd)
    asked.wait()


if __name__ == "__main__":
    main()
