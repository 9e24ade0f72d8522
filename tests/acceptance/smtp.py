"""A real SMTP inbox that keeps what it is sent and can be told to misbehave."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage

from aiosmtpd.controller import Controller


@dataclass
class Delivery:
    """One accepted message with its envelope."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    source: bytes

    def html(self) -> str:
        return self._part("text/html")

    def text(self) -> str:
        return self._part("text/plain")

    def _part(self, kind: str) -> str:
        parts = [p for p in self.message.walk() if p.get_content_type() == kind]
        assert len(parts) == 1, f"one {kind} part expected, {len(parts)} found"
        return parts[0].get_content()


class Inbox:
    """Listens on one port for its whole life, also over `down` and `up`."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"smtp://127.0.0.1:{self.port}"
        self.deliveries: list[Delivery] = []
        self.refusals = 0
        self.refuse_with: str | None = None
        self._controller: Controller | None = None
        self.up()

    def up(self) -> None:
        self.refuse_with = None
        if self._controller is None:
            self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
            self._controller.start()

    def down(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    close = down

    def to(self, address: str) -> list[Delivery]:
        return [d for d in self.deliveries if address in d.recipients]

    async def handle_RCPT(self, _server, _session, envelope, address, _options):
        if self.refuse_with:
            self.refusals += 1
            return self.refuse_with
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server, _session, envelope):
        source = envelope.original_content
        message = message_from_bytes(source, policy=policy.default)
        self.deliveries.append(Delivery(envelope.mail_from, list(envelope.rcpt_tos), message, source))
        return "250 OK"
