"""Receivers of alerts: a mail server and a judge of webhooks. Prints one JSON line for each port and each thing received.

usage: receivers.py CERTIFICATE KEY USER PASSWORD SECRET_FILE
"""

import email
import email.policy
import json
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cloudevents.v1.http import from_http
from standardwebhooks import Webhook

CERTIFICATE, KEY, USER, PASSWORD, SECRET_FILE = sys.argv[1:]
lock = threading.Lock()


def say(**line):
    with lock:
        print(json.dumps(line), flush=True)


class Mails:
    def __init__(self, door):
        self.door = door

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        headers = {name: str(mail[name] or "") for name in ("Subject", "Message-ID", "In-Reply-To", "References")}
        say(kind="mail", door=self.door, tls=session.ssl is not None, login=bool(session.authenticated),
            to=envelope.rcpt_tos, headers=headers, text=mail.get_content())
        return "250 OK"


def login(server, session, envelope, mechanism, data):
    known = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=known, handled=known)


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if self.path == "/slack":
            say(kind="slack", text=json.loads(body)["text"])
        else:
            with open(SECRET_FILE) as file:
                Webhook(file.read().strip()).verify(body, headers)
            event = from_http(headers, body)
            say(kind="webhook", type=event["type"], id=event["id"], source=event["source"], data=event.data)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def free_port():
    import socket
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(CERTIFICATE, KEY)
doors = {}
for door, options in {
    "starttls": {"tls_context": context, "require_starttls": True, "auth_required": True, "authenticator": login},
    "plain": {},
}.items():
    doors[door] = free_port()
    Controller(Mails(door), hostname="127.0.0.1", port=doors[door], **options).start()
hooks = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
say(kind="ready", http=hooks.server_address[1], **doors)
hooks.serve_forever()
