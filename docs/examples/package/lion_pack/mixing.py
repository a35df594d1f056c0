"""Running means."""


def mix(old, new, share_of_old):
    return share_of_old * old + (1 - share_of_old) * new
