"""Gymnasium environments of every problem, for libraries that train through `step` and `reset`.

Importing this package registers `gradlab/Hovering-v0` and the like, one for each name that
`gradlab.make` knows. Nothing here is differentiable: estimators use `gradlab.rollout`.
Gymnasium's rules: https://farama.org/Vector-Autoreset-Mode (1.1 and later).
"""

from gradlab.environments.registration import environment_id as environment_id
from gradlab.environments.registration import register_environments as register_environments
from gradlab.environments.single import ProblemEnv as ProblemEnv
from gradlab.environments.vector import ProblemVectorEnv as ProblemVectorEnv

register_environments()
