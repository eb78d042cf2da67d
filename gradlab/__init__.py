"""gradlab measures policy-gradient estimators in differentiable simulation.

Packages import downwards only. From the ground: `foundation` and `events`; `policies`,
`simulators` and `tasks`; `problems`; `rollouts`; `gradients`, with `statistics`; `critics`,
`oracle`, `landscapes` and `testing`; `training`; `environments` with `rendering`; `study` and
`commands`. Estimators are in the package `estimators`, questions in `studies`. Read `rollouts`
first, then `gradients`, `statistics`.
"""

import lazy_loader

from gradlab.foundation import siblings
from gradlab.version import __version__ as __version__

# an estimator that is not there is said to be hidden before it is missed
siblings.warn()

# names are imported when they are asked for, so that `gradlab --help` need not wait for torch
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
