"""Receive webhooks from python-exec and verify their signatures. Needs only the standard library.

Usage: python3 webhook_receiver.py [port], with SIGNING_SECRET in the environment.
The signatures follow https://www.standardwebhooks.com/, which also offers libraries.
"""

import base64
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_S = 300  # reject older requests, so that a recorded one cannot be replayed
MAX_BODY_BYTES = 8 * 1024 * 1024


class VerificationError(Exception):
    """The request was not sent by python-exec, or it is too old."""


def verify(signing_secret, headers, body, *, now_s):
    """Raise VerificationError unless the raw body was signed with the secret within the last five minutes."""
    webhook_id = headers.get("webhook-id") or ""
    timestamp = headers.get("webhook-timestamp") or ""
    if not timestamp.isdecimal() or abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise VerificationError("The timestamp is missing or too old.")
    key = base64.b64decode(signing_secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, "sha256")
    expected = b"v1," + base64.b64encode(digest)
    signatures = (headers.get("webhook-signature") or "").split()
    if not any(hmac.compare_digest(expected, signature.encode()) for signature in signatures):
        raise VerificationError("The signature does not match.")


class Handler(BaseHTTPRequestHandler):
    """Answer each webhook within 10 s. Do longer work after the response."""

    seen = set()  # a webhook may be delivered more than once; use a database in production
    signing_secret = ""

    def do_POST(self):
        """Verify a webhook and print its job."""
        length = self.headers.get("Content-Length") or ""
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        try:
            verify(self.signing_secret, self.headers, body, now_s=time.time())
        except VerificationError as error:
            self.send_error(401, str(error))
            return
        webhook_id = self.headers["webhook-id"]
        if webhook_id not in self.seen:
            self.seen.add(webhook_id)
            job = json.loads(body)
            print(job["id"], job["status"], flush=True)
        self.send_response(204)
        self.end_headers()


if __name__ == "__main__":
    Handler.signing_secret = os.environ["SIGNING_SECRET"]
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"Listening on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
