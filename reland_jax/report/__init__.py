"""Reports of a run for people: tables compared with the paper's, plots, one HTML page, TensorBoard events."""

from reland_jax.report.cases import LIST_LENGTH, report_content
from reland_jax.report.choice import CASES, cases_to_show
from reland_jax.report.console import console_report
from reland_jax.report.content import Case, GivenRationale, ItemLabel, ReportContent
from reland_jax.report.page import write_report
from reland_jax.report.paper import TABLE_2
from reland_jax.report.tensorboard import scalar_writer

__all__ = [
    "CASES",
    "LIST_LENGTH",
    "TABLE_2",
    "Case",
    "GivenRationale",
    "ItemLabel",
    "ReportContent",
    "cases_to_show",
    "console_report",
    "report_content",
    "scalar_writer",
    "write_report",
]
