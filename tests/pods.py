"""The message that Kubernetes shows for a container that ended with an error."""

import json

# The kubelet's limits for `terminationMessagePolicy: FallbackToLogsOnError`.
_LINES = 80
_BYTES = 2048


def message(log: str) -> str:
    """Return the message of a pod, which is the end of its container's log."""
    lines = "".join(log.splitlines(keepends=True)[-_LINES:])
    return lines.encode()[-_BYTES:].decode(errors="ignore")


def last_line(log: str) -> str:
    """Return the last line of a log, after a check that a pod's message holds all of it."""
    line = log.splitlines()[-1]
    assert line in message(log)
    return line


def reason(log: str) -> str:
    """Return the reason in the last line of a log: a JSON object, or text."""
    line = last_line(log)
    return str(json.loads(line)["reason"]) if line.startswith("{") else line
