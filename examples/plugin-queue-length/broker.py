"""A stand-in for RabbitMQ to try the plug-in with: queues that grow when told to.

python broker.py                                        prints its address
curl -X POST ADDRESS/api/queues/us-east -d 500          500 messages wait for us-east
curl ADDRESS/api/queues                                 what the plug-in reads
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

queues: dict[str, int] = {}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps([{"name": name, "messages": count} for name, count in queues.items()]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        queues[self.path.rsplit("/", 1)[-1]] = int(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
