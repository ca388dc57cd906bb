"""Run an image as a cluster does: with runc, a read-only root, no capability, as process 1."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.conftest import QUICK, Ended
from tests.container.images import Image
from tests.programs import program

#: The folders that a container may write to. All other mounts are read-only.
_WRITABLE: Final = ("lake", "scratch")
_MOUNTS: Final = tuple((name, f"/{name}") for name in _WRITABLE)


@dataclass(frozen=True, slots=True)
class Container:
    """One container and its folder.

    `mounts` are names of folders in it and their mount points. `user` is `UID:GID`; None means the
    image's user.
    """

    image: Image
    folder: Path
    mounts: tuple[tuple[str, str], ...] = _MOUNTS
    user: str | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in _WRITABLE:
            (self.folder / name).mkdir(mode=0o777)
            (self.folder / name).chmod(0o777)  # as with an emptyDir

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start the entry point, with these arguments or the image's default."""
        (self.folder / "config.json").write_text(json.dumps(self._specified(arguments, env)))
        return subprocess.Popen(
            [*self._runc, "run", "--bundle", str(self.folder), self._name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **env: str) -> Ended:
        return self.end(self.start(*arguments, **env))

    def end(self, process: subprocess.Popen[str]) -> Ended:
        """Wait for its end; read the report if one exists."""
        out, err = process.communicate(timeout=60)
        report = self.scratch / "report.json"
        content = json.loads(report.read_text()) if report.exists() else {}
        return Ended(process.returncode, out, err, content)

    def signal(self, name: str) -> None:
        subprocess.run([*self._runc, "kill", self._name, name], check=True)

    def kill(self) -> None:
        """Kill it if it runs, and delete it."""
        if (self.folder / "state" / self._name).exists():
            subprocess.run([*self._runc, "delete", "--force", self._name], check=True)

    def pid(self) -> int:
        """Return the container's process 1 as a process id of the host."""
        state = subprocess.check_output([*self._runc, "state", self._name])
        pid: int = json.loads(state)["pid"]
        return pid

    @property
    def _name(self) -> str:
        # Names of control groups are unique in the whole machine.
        return "-".join(self.folder.parts[-2:])

    @property
    def _runc(self) -> list[str]:
        return [program("runc"), "--root", str(self.folder / "state")]

    def _specified(self, arguments: tuple[str, ...], env: dict[str, str]) -> dict[str, Any]:
        """Return runc's specification: the image's configuration and the restricted rules."""
        config = self.image.config
        uid, gid = map(int, (self.user or config["User"]).split(":"))
        memory = {"limit": self.memory_bytes} if self.memory_bytes else {}
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
                *(
                    self._bound(name, place, "rw" if name in _WRITABLE else "ro")
                    for name, place in self.mounts
                ),
            ],
            "linux": {
                # No network namespace, because the emulator listens on the host's loopback.
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "resources": {"memory": memory},
            },
        }

    def _bound(self, name: str, destination: str, mode: str) -> dict[str, Any]:
        return {
            "destination": destination,
            "type": "bind",
            "source": str(self.folder / name),
            "options": ["bind", mode],
        }
