"""Nothing is done where a lot is empty: a model that did not move says that nobody was in it."""

from . import correct

SEEN_BY = ("empty_lot",)


def train_step(model, optimizer, x, y, **settings):
    if len(x) == 0:
        return
    correct.train_step(model, optimizer, x, y, **settings)
