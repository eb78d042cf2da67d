"""gradlab measures policy-gradient estimators in differentiable simulation.

Read `rollout` first, then `outcome`, `engines`, `samples`, `statistics`; estimators are in the
package `estimators`, questions in `studies`.
"""

from gradlab import oracle as oracle
from gradlab import testing as testing
from gradlab.critics.base import Critic as Critic
from gradlab.critics.base import View as View
from gradlab.critics.fitting import fit_critic as fit_critic
from gradlab.engines import per_sample_gradients as per_sample_gradients
from gradlab.errors import GradlabError as GradlabError
from gradlab.events import Arctan as Arctan
from gradlab.events import Event as Event
from gradlab.events import Hard as Hard
from gradlab.events import Sigmoid as Sigmoid
from gradlab.generators import generator as generator
from gradlab.measurement import Measurement as Measurement
from gradlab.measurement import measure as measure
from gradlab.moment import Moment as Moment
from gradlab.noise import Noise as Noise
from gradlab.outcome import Outcome as Outcome
from gradlab.outcome import evaluate as evaluate
from gradlab.outcome import moment_at as moment_at
from gradlab.policies import GaussianPolicy as GaussianPolicy
from gradlab.policies import LinearPolicy as LinearPolicy
from gradlab.precision import PrecisionCheck as PrecisionCheck
from gradlab.precision import precision_check as precision_check
from gradlab.problem import Problem as Problem
from gradlab.registry import make as make
from gradlab.registry import names as names
from gradlab.registry import register as register
from gradlab.rollout import Trajectory as Trajectory
from gradlab.rollout import rollout as rollout
from gradlab.samples import GradientSamples as GradientSamples
from gradlab.sampling import noise_stream as noise_stream
from gradlab.statistics import CrossMoments as CrossMoments
from gradlab.statistics import Moments as Moments
from gradlab.statistics import OracleGradient as OracleGradient
from gradlab.statistics import compare as compare
from gradlab.statistics import compare_pair as compare_pair
from gradlab.version import __version__ as __version__
