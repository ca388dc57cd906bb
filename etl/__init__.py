"""Loads LivePerson's Actual Handle Time files into a partitioned Parquet lake.

From Python: `run`, `plan`, `status`, `verify` and their async forms take `Settings` and return what
the commands of these names show (etl.pipeline.library, etl.audit.library).
They are loaded when they are first asked for, so that `import etl` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

from etl.model import __version__

if TYPE_CHECKING:
    from etl.audit.library import status, status_async, verify, verify_async
    from etl.audit.survey import Survey
    from etl.audit.verify import Verification
    from etl.config.settings import Settings
    from etl.config.sources import load_settings
    from etl.model.errors import AhtEtlError, RunError, UsageError
    from etl.pipeline.library import plan, plan_async, run, run_async
    from etl.pipeline.plan_report import PlanReport
    from etl.pipeline.report import Report

__all__ = [
    "AhtEtlError",
    "PlanReport",
    "Report",
    "RunError",
    "Settings",
    "Survey",
    "UsageError",
    "Verification",
    "__version__",
    "load_settings",
    "plan",
    "plan_async",
    "run",
    "run_async",
    "status",
    "status_async",
    "verify",
    "verify_async",
]

_HOMES: Final = {
    "AhtEtlError": "etl.model.errors",
    "PlanReport": "etl.pipeline.plan_report",
    "Report": "etl.pipeline.report",
    "RunError": "etl.model.errors",
    "Settings": "etl.config.settings",
    "Survey": "etl.audit.survey",
    "UsageError": "etl.model.errors",
    "Verification": "etl.audit.verify",
    "load_settings": "etl.config.sources",
    "plan": "etl.pipeline.library",
    "plan_async": "etl.pipeline.library",
    "run": "etl.pipeline.library",
    "run_async": "etl.pipeline.library",
    "status": "etl.audit.library",
    "status_async": "etl.audit.library",
    "verify": "etl.audit.library",
    "verify_async": "etl.audit.library",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
