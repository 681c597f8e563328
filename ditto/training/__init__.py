"""How the shipped weights are made: data, training, export. Commands and figures: README.md of the bundle."""


from ditto.commands import started

started(__name__)


def held_out(place: int) -> bool:
    """Whether the GRID clip at this place of the sorted list is kept out of all training: every tenth is."""
    return place % 10 == 9
