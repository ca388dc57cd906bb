"""A static nginx that answers like the vendor's API, at once or after a pause."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench.workload import ACCOUNT

_MODULES: Final = Path("/usr/lib/nginx/modules")
_PACKAGES: Final = ("nginx-light", "libnginx-mod-http-lua")

# `$arg_path` is not percent-decoded, because clients send the path unescaped, as the vendor's
# pattern allows. Clients that do not use the API find the same files at their plain paths.
_CONFIGURATION: Final = """\
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
daemon off;
pid {scratch}/pid;
error_log {scratch}/error.log;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi; uwsgi_temp_path {scratch}/uwsgi;
  scgi_temp_path {scratch}/scgi;
  default_type application/octet-stream;
  sendfile on; tcp_nopush on; tcp_nodelay on;
  keepalive_requests 1000000; keepalive_timeout 75s;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    root {root};
    {pause}
    location = /api/account/{account}/agent-segments/files {{ try_files $arg_path =404; }}
    location = /api/account/{account}/agent-segments/breakdown {{
      try_files /listing/$arg_fromMillis.json @empty;
    }}
    location @empty {{
      default_type application/json;
      return 404 '{{"error":"no paths were found in hdfs for the given timeframe"}}';
    }}
  }}
}}
"""


def install() -> None:
    """Install nginx from Debian's packages if it is missing. Raises CalledProcessError."""
    if shutil.which("nginx") and _MODULES.joinpath("ngx_http_lua_module.so").exists():
        return
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-y", "-qq", *_PACKAGES], check=True)


@contextlib.contextmanager
def serve(root: Path, pause_ms: int = 0) -> Iterator[str]:
    """Serve the folder of a workload, with a pause before each answer; yield the base URL."""
    install()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        pause = f"access_by_lua_block {{ ngx.sleep({pause_ms / 1000}) }}" if pause_ms else ""
        configuration = Path(scratch, "nginx.conf")
        configuration.write_text(
            _CONFIGURATION.format(
                modules=_MODULES,
                scratch=scratch,
                port=port,
                root=root.resolve(),
                pause=pause,
                account=ACCOUNT,
            )
        )
        Path(scratch).chmod(0o755)
        command = ["nginx", "-c", str(configuration), "-g", "user root;"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            _wait(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError("nginx does not answer; see `nginx -t` and the packages that it needs")
