"""The type checker of the tests: beartype, where an int is a float, as it is for every Python type
checker."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
