"""Loads LivePerson's Actual Handle Time files into a partitioned Parquet lake.

From Python: `run`, `plan`, `status`, `verify` and their async forms take `Settings` and return what
the commands of these names show (etl.pipeline.library).
They are loaded when they are first asked for, so that `import etl` is quick.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from etl.audit.survey import Survey
    from etl.audit.verify import Verification
    from etl.config.settings import Settings
    from etl.config.sources import load_settings
    from etl.model.errors import AhtEtlError, RunError, UsageError
    from etl.pipeline.library import (
        plan,
        plan_async,
        run,
        run_async,
        status,
        status_async,
        verify,
        verify_async,
    )
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

__version__ = "0.1.0"

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
    "status": "etl.pipeline.library",
    "status_async": "etl.pipeline.library",
    "verify": "etl.pipeline.library",
    "verify_async": "etl.pipeline.library",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package as an object: `etl.plan` is the function, whatever module has that name.

    The import system puts each submodule that is loaded into its package, under its name; there
    the module `plan` would hide the function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
