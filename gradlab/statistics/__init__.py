"""Statistics of per-sample gradients.

Reading order: moments, truth, intervals, gram, compare, pairs.
"""

from gradlab.statistics.comparing import compare
from gradlab.statistics.formatting import format_interval
from gradlab.statistics.intervals import Interval, ratio_interval, squared_norm_interval
from gradlab.statistics.moments import Moments
from gradlab.statistics.pairs import CrossMoments, compare_pair, holm
from gradlab.statistics.report import PairReport, PairRow, Report, Row
from gradlab.statistics.truth import OracleGradient

__all__ = [
    "CrossMoments",
    "Interval",
    "Moments",
    "OracleGradient",
    "PairReport",
    "PairRow",
    "Report",
    "Row",
    "compare",
    "compare_pair",
    "format_interval",
    "holm",
    "ratio_interval",
    "squared_norm_interval",
]
