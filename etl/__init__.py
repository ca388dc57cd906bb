"""Loads LivePerson's Actual Handle Time files into a partitioned Parquet lake.

From Python: `run`, `plan`, `status`, `verify` and their async forms take `Settings` and return what
the commands of these names show (etl.library).
They are loaded when they are first asked for, so that `import etl` is quick.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from etl.errors import AhtEtlError, RunError, UsageError
    from etl.lake.survey import Survey
    from etl.library import (
        plan,
        plan_async,
        run,
        run_async,
        status,
        status_async,
        verify,
        verify_async,
    )
    from etl.outcome import Report
    from etl.plan_report import PlanReport
    from etl.settings import Settings
    from etl.sources import load_settings
    from etl.verify import Verification

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
    "AhtEtlError": "etl.errors",
    "PlanReport": "etl.plan_report",
    "Report": "etl.outcome",
    "RunError": "etl.errors",
    "Settings": "etl.settings",
    "Survey": "etl.lake.survey",
    "UsageError": "etl.errors",
    "Verification": "etl.verify",
    "load_settings": "etl.sources",
    "plan": "etl.library",
    "plan_async": "etl.library",
    "run": "etl.library",
    "run_async": "etl.library",
    "status": "etl.library",
    "status_async": "etl.library",
    "verify": "etl.library",
    "verify_async": "etl.library",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This package as an object: `etl.plan` is the function, `from etl.plan import …` the module's.

    The import system puts each submodule that is loaded into its package, under its name; there
    the module `plan` would hide the function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
