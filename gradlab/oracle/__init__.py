"""Where the truth comes from: closed forms, quadrature, finite differences, large samples.

Every oracle is called with (problem, params) and returns an `OracleGradient` with a standard error
of its own. Oracles that sample have seeds of their own, independent of what they judge.
"""

from gradlab.oracle.base import ORACLE_SEED as ORACLE_SEED
from gradlab.oracle.base import Oracle as Oracle
from gradlab.oracle.base import Params as Params
from gradlab.oracle.finite_difference import FiniteDifference as FiniteDifference
from gradlab.oracle.formula import ClosedForm as ClosedForm
from gradlab.oracle.large_sample import LargeSample as LargeSample
from gradlab.oracle.large_sample import Progress as Progress
from gradlab.oracle.quadrature import Quadrature as Quadrature
