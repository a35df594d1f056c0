"""The public names for type checkers and editors; at run time they are imported when first used."""

from rankwise import optim as optim
from rankwise.library.prediction import predict as predict
from rankwise.library.results import load as load
from rankwise.training.kept import load_trained as load_trained

__version__: str
