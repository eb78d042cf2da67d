import shlex
import sys

from gradlab.study.commandline import guarded
from studies.train.run import main

if __name__ == "__main__":
    given = sys.argv[1:]
    kept = [arg for arg in given if arg != "--fresh"]
    again = shlex.join(["python", "-m", "studies.train", *kept])
    guarded("train", again, lambda: main(given))
