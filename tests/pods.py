"""What Kubernetes shows of a container that ended with an error."""

import json

# As the kubelet does for `terminationMessagePolicy: FallbackToLogsOnError`.
_LINES = 80
_BYTES = 2048


def message(log: str) -> str:
    """Return the message of a pod: the end of its container's log."""
    lines = "".join(log.splitlines(keepends=True)[-_LINES:])
    return lines.encode()[-_BYTES:].decode(errors="ignore")


def last_line(log: str) -> str:
    """Return the last line of a log; a pod's message has to hold all of it."""
    line = log.splitlines()[-1]
    assert line in message(log)
    return line


def reason(log: str) -> str:
    """Return the reason in the last line of a log: a JSON object, or text."""
    line = last_line(log)
    return str(json.loads(line)["reason"]) if line.startswith("{") else line
