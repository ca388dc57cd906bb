"""Running an image as a cluster does: runc, a read-only root, no capability, process 1."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import QUICK, Ended
from tests.container.images import Image
from tests.programs import program


@dataclass(slots=True)
class Container:
    """One container: a folder for each place that it may write to."""

    image: Image
    folder: Path
    user: str | None = None
    mounted: tuple[str, ...] = ("lake", "scratch")

    def __post_init__(self) -> None:
        for name in ("lake", "scratch"):
            (self.folder / name).mkdir()
            (self.folder / name).chmod(0o777)  # as an emptyDir is
        (self.folder / "termination-log").touch()
        (self.folder / "termination-log").chmod(0o666)

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    @property
    def termination(self) -> str:
        """What `kubectl describe pod` would show."""
        return (self.folder / "termination-log").read_text()

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start the entry point, with these arguments or the image's own."""
        (self.folder / "config.json").write_text(json.dumps(self._specified(arguments, env)))
        return subprocess.Popen(
            [*self._runc, "run", "--bundle", str(self.folder), self.folder.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **env: str) -> Ended:
        return self.end(self.start(*arguments, **env))

    def end(self, process: subprocess.Popen[str]) -> Ended:
        """Wait for its end; the report is read where there is one."""
        out, err = process.communicate(timeout=60)
        report = self.scratch / "report.json"
        content = json.loads(report.read_text()) if report.exists() else {}
        return Ended(process.returncode, out, err, content)

    def signal(self, name: str) -> None:
        subprocess.run([*self._runc, "kill", self.folder.name, name], check=True)

    def kill(self) -> None:
        """End it at once, if it runs, and forget it."""
        if (self.folder / "state" / self.folder.name).exists():
            subprocess.run([*self._runc, "delete", "--force", self.folder.name], check=True)

    def pid(self) -> int:
        """Return the number, outside, of the container's process 1."""
        state = subprocess.check_output([*self._runc, "state", self.folder.name])
        pid: int = json.loads(state)["pid"]
        return pid

    @property
    def _runc(self) -> list[str]:
        return [program("runc"), "--root", str(self.folder / "state")]

    def _specified(self, arguments: tuple[str, ...], env: dict[str, str]) -> dict[str, Any]:
        """Return what the runtime is told: the image's configuration, the restricted rules."""
        config = self.image.config
        uid, gid = map(int, (self.user or config["User"]).split(":"))
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": uid, "gid": gid},
                "args": [*config["Entrypoint"], *(arguments or config["Cmd"])],
                "env": [*config["Env"], *(f"{k}={v}" for k, v in {**QUICK, **env}.items())],
                "cwd": config["WorkingDir"],
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.image.files), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {
                    "destination": "/dev",
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": ["nosuid", "strictatime", "mode=755", "size=64k"],
                },
                _bound(self.folder / "termination-log", "/dev/termination-log"),
                *(_bound(self.folder / name, f"/{name}") for name in self.mounted),
            ],
            # The host's network: the emulator listens on its loopback.
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
        }


def _bound(source: Path, destination: str) -> dict[str, Any]:
    return {
        "destination": destination,
        "type": "bind",
        "source": str(source),
        "options": ["bind", "rw"],
    }
