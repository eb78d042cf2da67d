"""Tests of an estimator's expectation and of an objective's continuity, for any test-suite.

They cannot pass for lack of precision: where the samples cannot tell, they say so.
"""

from gradlab.testing.jumps import Discontinuous as Discontinuous
from gradlab.testing.jumps import assert_continuous as assert_continuous
from gradlab.testing.jumps import detect_jump as detect_jump
from gradlab.testing.unbiased import Biased as Biased
from gradlab.testing.unbiased import CannotTell as CannotTell
from gradlab.testing.unbiased import Verdict as Verdict
from gradlab.testing.unbiased import assert_unbiased as assert_unbiased
from gradlab.testing.unbiased import fixed_directions as fixed_directions
from gradlab.testing.unbiased import project as project
