"""gradlab measures policy-gradient estimators in differentiable simulation.

Packages import downwards only. From the ground: `foundation` and `events`; `policies`, `simulators`
and `tasks`; `problems`; `rollouts`; `gradients`, with `statistics`; `critics`, `oracle` and
`landscapes`; `environments` with `rendering`; `study` and `commands`. Estimators are in the package
`estimators`, questions in `studies`. Read `rollouts` first, then `gradients`, `statistics`.
"""

from gradlab import oracle as oracle
from gradlab import testing as testing
from gradlab.critics.fitting import fit_critic as fit_critic
from gradlab.events import Arctan as Arctan
from gradlab.events import Event as Event
from gradlab.events import Hard as Hard
from gradlab.events import Sigmoid as Sigmoid
from gradlab.foundation import checkpoints as checkpoints
from gradlab.foundation import errors as errors
from gradlab.foundation.errors import GradlabError as GradlabError
from gradlab.foundation.generators import generator as generator
from gradlab.foundation.moment import Moment as Moment
from gradlab.foundation.noise import Noise as Noise
from gradlab.gradients.engines import per_sample_gradients as per_sample_gradients
from gradlab.gradients.measurement import Measurement as Measurement
from gradlab.gradients.measurement import measure as measure
from gradlab.gradients.precision import PrecisionCheck as PrecisionCheck
from gradlab.gradients.precision import precision_check as precision_check
from gradlab.gradients.samples import GradientSamples as GradientSamples
from gradlab.gradients.sampling import noise_stream as noise_stream
from gradlab.policies.composed import NetworkPolicy as NetworkPolicy
from gradlab.policies.gaussian import GaussianPolicy as GaussianPolicy
from gradlab.policies.gaussian import LinearPolicy as LinearPolicy
from gradlab.policies.networks import Network as Network
from gradlab.policies.policy import Policy as Policy
from gradlab.problems.critic import Critic as Critic
from gradlab.problems.critic import View as View
from gradlab.problems.problem import Problem as Problem
from gradlab.problems.registry import make as make
from gradlab.problems.registry import names as names
from gradlab.problems.registry import register as register
from gradlab.rollouts.outcome import Outcome as Outcome
from gradlab.rollouts.outcome import evaluate as evaluate
from gradlab.rollouts.outcome import moment_at as moment_at
from gradlab.rollouts.rollout import Trajectory as Trajectory
from gradlab.rollouts.rollout import rollout as rollout
from gradlab.statistics import CrossMoments as CrossMoments
from gradlab.statistics import Moments as Moments
from gradlab.statistics import OracleGradient as OracleGradient
from gradlab.statistics import compare as compare
from gradlab.statistics import compare_pair as compare_pair
from gradlab.version import __version__ as __version__
