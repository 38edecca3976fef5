#!/usr/bin/env python3
"""Sends usage events to weir, each exactly once in effect. Standard library only; copy it into your service.

    from usage_client import UsageClient
    usage = UsageClient("http://127.0.0.1:8080", source="chat-8b", token=os.environ.get("WEIR_TOKEN"))
    usage.add("req-7f3a", "tokens_out", 345, "Tokens", tenant="acme", dims={"service": "chat", "model": "orca-8b"})
    usage.flush()   # or use it as a context manager

The wire contract is schemas/usage-event.schema.json. What makes it safe to retry:

- the id of an event is made from the request, the meter and the segment, never from a clock or a random number;
- an answer of 202 says that weir holds all events of the request on disk; anything else says that it may hold none,
  so the same events are sent again, with the same ids, and weir counts each of them once;
- 400 is never retried: the events are wrong, and the answer says which and why.
"""

import datetime
import gzip
import json
import random
import time
import urllib.error
import urllib.request

BATCH_EVENTS = 500
ATTEMPTS = 8
RETRY = {408, 429, 500, 502, 503, 504}


class UsageError(Exception):
    """The events cannot be delivered; `.events` are those that are not known to be held."""

    def __init__(self, message, events):
        super().__init__(message)
        self.events = events


class UsageClient:
    def __init__(self, url, source, token=None, timeout=30.0, sleep=time.sleep):
        self.url = url.rstrip("/") + "/api/v1/usage"
        self.source, self.token, self.timeout, self.sleep = source, token, timeout, sleep
        self.events = []

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.flush()

    def add(self, request_id, meter, quantity, unit, *, tenant=None, dims=None, segment=0, at=None, start=None, end=None):
        """One event. `quantity`: a whole number of `unit`. `at`: an aware datetime; now if absent. `start`, `end`: held so long."""
        data = {"meter": meter, "quantity": quantity, "unit": unit}
        if dims:
            data["dims"] = dims
        if start is not None:
            data["start"], data["end"] = _text(start), _text(end)
        event = {
            "specversion": "1.0",
            "type": "weir.usage.v1",
            "source": self.source,
            "id": f"{request_id}/{meter}/{segment}",
            "time": _text(at or datetime.datetime.now(datetime.timezone.utc)),
            "data": data,
        }
        if tenant is not None:
            event["subject"] = tenant
        self.events.append(event)
        if len(self.events) >= BATCH_EVENTS:
            self.flush()

    def flush(self):
        """Returns when weir holds every event, or raises UsageError; events that are not known to be held stay here."""
        while self.events:
            batch = self.events[:BATCH_EVENTS]
            self._send(batch)
            del self.events[: len(batch)]

    def _send(self, batch):
        body = gzip.compress(json.dumps(batch, separators=(",", ":")).encode(), 1)
        headers = {"Content-Type": "application/cloudevents-batch+json", "Content-Encoding": "gzip"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        why = ""
        for attempt in range(ATTEMPTS):
            try:
                request = urllib.request.Request(self.url, body, headers, method="POST")
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    if answer.status == 202:
                        return
                    why = f"status {answer.status}"
            except urllib.error.HTTPError as error:
                why = f"status {error.code}: {error.read(2000).decode(errors='replace')}"
                if error.code not in RETRY:
                    raise UsageError(why, batch) from None
                pause = error.headers.get("Retry-After", "")
                if pause.isdigit():
                    self.sleep(min(int(pause), 60))
                    continue
            except OSError as error:  # refused, reset, timed out: nobody knows whether it came
                why = str(error)
            self.sleep(min(0.1 * 2**attempt, 10) * random.uniform(0.5, 1))
        raise UsageError(f"not taken after {ATTEMPTS} attempts: {why}", batch)


def _text(instant):
    return instant.astimezone(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
