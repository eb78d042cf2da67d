"""Frames of trajectories: uint8 RGB arrays, PNG and GIF.

Read `film.py` first, then `scenes.py` (what is drawn for which simulator and task), `figures.py`
(matplotlib, works everywhere) and `mujoco_frames.py` (MuJoCo's renderer, where it works).
"""

from gradlab.rendering.film import RENDERERS as RENDERERS
from gradlab.rendering.film import FilmStrip as FilmStrip
from gradlab.rendering.film import frames as frames
from gradlab.rendering.film import frames_per_second as frames_per_second
from gradlab.rendering.film import save_gif as save_gif
from gradlab.rendering.film import save_png as save_png
from gradlab.rendering.pictures import Line as Line
from gradlab.rendering.pictures import Picture as Picture
from gradlab.rendering.protocols import HasMujocoModel as HasMujocoModel
from gradlab.rendering.protocols import HasShapes as HasShapes
from gradlab.rendering.scenes import Snapshot as Snapshot
from gradlab.rendering.scenes import picture as picture
from gradlab.rendering.scenes import scenery as scenery
from gradlab.simulators.base import Timed as Timed
